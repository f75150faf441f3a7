import { setTimeout as sleep } from 'node:timers/promises'

const words = `Groups span every instance, so whoever asks gets the same answer wherever the answer is made. Each word is a piece of one
text that grows: readers get what there is, and then the rest, once and in order. Load this page again and the text is still here, and
still growing; open it on a second device and stop it there, and this very loop ends.`.split(/\s/)

/** Stands for a large language model: yields a word now and then, until the signal aborts. */
export async function * model (prompt: string, { signal }: { readonly signal: AbortSignal }): AsyncGenerator<string> {
  yield `You asked: “${prompt}” `
  for (const word of words) {
    await sleep(60, undefined, { signal })
    yield ` ${word}`
  }
}
