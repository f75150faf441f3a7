import { type Redis, SentinelConnector, SentinelIterator, type SentinelConnectionOptions } from 'ioredis'

type ConnectorClass = new (options: unknown) => SentinelConnector

/**
 * The sentinels of one link. They outlive its connections: those that others told of stay known when none of the configured ones is left,
 * and one that names a server of no use is not asked first again.
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

  /** The sentinel that is asked first now is asked last from now on. */
  rotate (): void {
    this.#iterator.reset(false)
    this.#iterator.next()
    this.#iterator.next()
    this.#iterator.reset(true)
  }

  /** Each dial begins with the first of them, however far the last one came. */
  rewind (): void {
    this.#iterator.reset(false)
  }
}

/**
 * ioredis listens to no error of the clients by which it hears of failovers, and writes each of them to stderr. That a sentinel is gone
 * matters when the master is looked for, and is told then.
 */
function listenToErrors (connector: SentinelConnector): void {
  const internals = connector as unknown as { connectToSentinel? (...args: unknown[]): Redis }
  const { connectToSentinel } = internals
  if (connectToSentinel === undefined) return
  internals.connectToSentinel = (...args) => connectToSentinel.apply(connector, args).on('error', () => {})
}
