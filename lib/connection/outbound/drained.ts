import type { Duplex } from 'node:stream'

/** How often a socket is looked at that does not say when it is written. */
const pollMs = 20

/** Resolves when the stream has written what waited in it, or sooner, when `isOver` finds that there is nothing left to wait for. */
export async function drained (stream: Duplex | undefined, isOver: () => boolean): Promise<void> {
  // Below its high-water mark a stream says nothing, and ws never does.
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
