import { type Redis, SentinelConnector, SentinelIterator, type SentinelConnectionOptions } from 'ioredis'

type ConnectorClass = new (options: unknown) => SentinelConnector

/**
 * The sentinels of one link. The list outlives the connections of the link: sentinels that were found through others stay known when none
 * of the configured ones is left, and a sentinel that names a server of no use is not asked first again.
 */
export class Sentinels {
  readonly #iterator: SentinelIterator

  constructor (sentinels: NonNullable<SentinelConnectionOptions['sentinels']>) {
    this.#iterator = new SentinelIterator(sentinels)
  }

  /** The connector of ioredis that finds the master through these sentinels. */
  get connector (): ConnectorClass {
    const iterator = this.#iterator
    return class extends SentinelConnector {
      constructor (options: unknown) {
        super(options as SentinelConnectionOptions)
        this.sentinelIterator = iterator
        listenToErrors(this)
      }
    }
  }

  /** Moves the sentinel that is asked first to the end of the list. */
  rotate (): void {
    this.#iterator.reset(false)
    this.#iterator.next()
    this.#iterator.next()
    this.#iterator.reset(true)
  }

  /** Begins again with the first sentinel, however far the last dial came. */
  rewind (): void {
    this.#iterator.reset(false)
  }
}

/**
 * ioredis listens to no errors of the clients by which it hears of failovers, and so prints each of them to stderr. A lost sentinel matters
 * only when the master is looked for, and is reported then.
 */
function listenToErrors (connector: SentinelConnector): void {
  const internals = connector as unknown as { connectToSentinel? (...args: unknown[]): Redis }
  const { connectToSentinel } = internals
  if (connectToSentinel === undefined) return
  internals.connectToSentinel = (...args) => connectToSentinel.apply(connector, args).on('error', () => {})
}
