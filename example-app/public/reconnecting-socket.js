/* global WebSocket */

const firstDelayMs = 500
const maxDelayMs = 15_000
/** A connection that lasted this long was a good one: the next delay starts small again. */
const goodMs = 5_000

/**
 * Keeps a WebSocket open until `close()`. `onState` hears { name: 'connecting' | 'open' | 'waiting' | 'closed', retryAt? },
 * `onText` every text frame.
 */
export function reconnectingSocket (url, token, { onState, onText }) {
  let socket
  let timer
  let failures = 0

  function open () {
    clearTimeout(timer)
    onState({ name: 'connecting' })
    // A page cannot set the Authorization header of a WebSocket; the token travels as a subprotocol instead.
    const current = socket = new WebSocket(url, ['bearer', token])
    let openedAt
    current.onopen = () => {
      openedAt = performance.now()
      onState({ name: 'open' })
    }
    current.onmessage = ({ data }) => {
      if (typeof data === 'string') onText(data)
    }
    current.onclose = () => {
      if (current !== socket) return
      failures = openedAt !== undefined && performance.now() - openedAt > goodMs ? 0 : failures + 1
      // Jitter: after a restart of the server not all pages come back in the same instant.
      const delayMs = Math.min(maxDelayMs, firstDelayMs * 2 ** failures) * (0.5 + Math.random() / 2)
      socket = undefined
      timer = setTimeout(open, delayMs)
      onState({ name: 'waiting', retryAt: performance.now() + delayMs })
    }
  }

  open()
  return {
    /** Whether the text was handed over. */
    send (text) {
      if (socket?.readyState !== WebSocket.OPEN) return false
      socket.send(text)
      return true
    },
    /** There is reason to hope: does not wait for the next try. */
    retryNow () {
      if (socket === undefined) open()
    },
    close () {
      clearTimeout(timer)
      const last = socket
      socket = undefined
      last?.close(1000)
      onState({ name: 'closed' })
    }
  }
}
