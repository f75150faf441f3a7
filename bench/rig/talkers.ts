import { once } from 'node:events'
import { WebSocket } from 'ws'
import { expose } from './child.ts'

const sockets: WebSocket[] = []

/** Clients of one room: one sends messages with an `id`, all listen. */
const api = {
  async open (url: string, count: number): Promise<void> {
    const opened = Array.from({ length: count }, () => new WebSocket(url))
    await Promise.all(opened.map(async socket => await once(socket, 'open')))
    sockets.push(...opened)
  },
  /** The first one sends messages, some at a time. Resolves when all have been answered. */
  async talk (messages: number, text: string): Promise<void> {
    const [socket] = sockets
    if (socket !== undefined) await talk(socket, messages, text)
  },
  close (): void {
    for (const socket of sockets.splice(0)) socket.terminate()
  }
}
export type Talkers = typeof api

const mostAtOnce = 32
const replyStart = Buffer.from('{"type":"reply"')

async function talk (socket: WebSocket, messages: number, text: string): Promise<void> {
  let [sent, answered] = [0, 0]
  await new Promise<void>(resolve => {
    const send = (): void => {
      while (sent < messages && sent - answered < mostAtOnce) {
        sent++
        socket.send(`{"type":"say","data":{"text":"${text}"},"id":${sent}}`)
      }
    }
    const received = (data: Buffer): void => {
      if (!data.subarray(0, replyStart.length).equals(replyStart)) return
      answered++
      send()
      if (answered < messages) return
      socket.off('message', received)
      resolve()
    }
    socket.on('message', received)
    send()
  })
}

expose(api)
