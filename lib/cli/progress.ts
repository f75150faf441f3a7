/** Where progress is shown: a terminal gets one line that is written over, anything else a line for each step. */
export class Progress {
  readonly #stream: Pick<NodeJS.WriteStream, 'write' | 'isTTY'>
  #shown = false

  constructor (stream: Pick<NodeJS.WriteStream, 'write' | 'isTTY'>) {
    this.#stream = stream
  }

  show (line: string): void {
    this.#stream.write(this.#stream.isTTY ? `\r\x1b[K${line}` : `${line}\n`)
    this.#shown = true
  }

  /** Leaves the terminal to what comes next. */
  end (): void {
    if (this.#shown && this.#stream.isTTY) this.#stream.write('\n')
    this.#shown = false
  }
}
