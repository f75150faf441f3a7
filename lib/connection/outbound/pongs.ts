import type { WebSocket } from 'ws'

const onItsWay = Symbol('answer to a ping')

interface PingedSocket extends WebSocket {
  /** Set while an answer is on its way: the latest ping since then. */
  [onItsWay]?: { latest?: Buffer } | undefined
}

/**
 * Lets one answer to the client's pings be on its way at a time. Of the pings that come meanwhile the latest is answered, as RFC 6455
 * (5.5.3) allows. So a client that pings and does not read makes nothing pile up, and one that pings all the time costs few writes.
 */
export function boundPongs (socket: WebSocket): void {
  socket.pong = pong
}

/** What ws answers pings with: one function for all sockets. */
function pong (this: PingedSocket, data: Buffer, mask?: boolean, done?: (error: Error) => void): void {
  const earlier = this[onItsWay]
  if (earlier !== undefined) {
    // A copy: the payload is a view into what the network brought.
    earlier.latest = Buffer.from(data)
    // Newer releases of ws count answers until they are written, and end the socket when these are too many.
    return (done as (() => void) | undefined)?.()
  }
  const answer: { latest?: Buffer } = this[onItsWay] = {}
  const { pong: write } = Object.getPrototypeOf(this) as WebSocket
  write.call(this, data, mask, error => {
    this[onItsWay] = undefined
    done?.(error)
    if (answer.latest !== undefined && this.readyState === this.OPEN) this.pong(answer.latest, mask)
  })
}
