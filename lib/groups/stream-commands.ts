import type { StreamName } from '../backplane/backplane.ts'
import type { Streams } from '../streams/streams.ts'
import type { Everywhere } from './everywhere.ts'

/** Stops streams, whichever process makes them. */
export class StreamCommands {
  readonly #streams: Streams
  readonly #everywhere: Pick<Everywhere, 'askOne'>
  readonly #self: string

  /** `self`: the id of this process. */
  constructor (streams: Streams, everywhere: Pick<Everywhere, 'askOne'>, self: string) {
    this.#streams = streams
    this.#everywhere = everywhere
    this.#self = self
  }

  /** As `Registry.stopStream`. */
  async stop (stream: StreamName): Promise<boolean> {
    if (this.#streams.stopHere(stream)) return true
    const by = (await this.#streams.headOfOpen(stream))?.by
    if (by === undefined || by === this.#self) return false
    return await this.#everywhere.askOne(by, { op: 'stopStream', stream }) === true
  }

  /** Stops a stream for another process. */
  stopHere (name: StreamName): boolean {
    return this.#streams.stopHere(name)
  }
}
