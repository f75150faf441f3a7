import type { Duplex } from 'node:stream'

/** How often to look at a socket that does not tell when it has written everything. */
const pollMs = 20

/** Resolves when the stream has written what waited in it, or sooner, when `isOver` finds that there is nothing left to wait for. */
export async function drained (stream: Duplex | undefined, isOver: () => boolean): Promise<void> {
  // Below its high-water mark a stream emits no 'drain', and ws never does.
  while (stream?.writableNeedDrain !== true) {
    await new Promise(resolve => { setTimeout(resolve, pollMs).unref() })
    if (isOver()) return
  }
  await new Promise<void>(resolve => {
    const done = (): void => {
      stream.off('drain', done)
      stream.off('close', done)
      resolve()
    }
    stream.on('drain', done)
    stream.on('close', done)
  })
}
