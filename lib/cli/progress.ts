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

  /** Ends the line that is written over: what comes next begins on a new line. */
  end (): void {
    if (this.#shown && this.#stream.isTTY) this.#stream.write('\n')
    this.#shown = false
  }
}
