import { deferred, withDeadline } from '../../deadline.ts'
import type { Envelope } from '../backplane.ts'
import { decode } from './envelope.ts'
import type { Link } from './link/port.ts'
import { PubSubProbe } from './link/subscriptions/pubsub-probe.ts'
import { Subscriptions } from './link/subscriptions/subscriptions.ts'

/** The channel on which a process without sockets gets the answers of instances. Its link subscribes to nothing else. */
export class Inbox {
  readonly #command: Link
  readonly #subscribe: Link
  readonly #channel: string
  readonly #subscriptions: Subscriptions
  readonly #probe: PubSubProbe
  readonly #connected = deferred()
  readonly #close: () => Promise<void>

  /** `close` closes the links that were made for the inbox alone. */
  constructor (
    links: { readonly command: Link, readonly subscribe: Link }, channel: string, deliver: (envelope: Envelope) => void,
    close: () => Promise<void>
  ) {
    const { command, subscribe } = links
    this.#command = command
    this.#subscribe = subscribe
    this.#channel = channel
    this.#close = close
    const ignore = (): void => {}
    this.#subscriptions = new Subscriptions(subscribe, command.deadlineMs, 0, channel, { acked: ignore, dropped: ignore, changed: ignore })
    this.#probe = new PubSubProbe(command, subscribe, this.#subscriptions, channel)
    subscribe.on({
      up: () => this.#up(),
      down: () => {
        // After a hang as after a break: only a new connection is sure to be subscribed.
        subscribe.reset()
        this.#subscriptions.disconnected()
      }
    })
    subscribe.onMessage((_channel, bytes) => {
      const envelope = this.#probe.received(bytes) ? undefined : decode(bytes)
      if (envelope !== undefined) deliver(envelope)
    })
    if (subscribe.up) this.#up()
  }

  /** Resolves once answers reach this process. @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE */
  async open (): Promise<void> {
    await withDeadline(this.#connected.promise, this.#command.deadlineMs, () => {
      throw this.#subscribe.unavailable()
    })
    await this.#subscriptions.subscribe(this.#channel)
  }

  async close (): Promise<void> {
    this.#probe.close()
    await this.#subscriptions.close()
    await this.#close()
  }

  #up (): void {
    this.#subscriptions.connected()
    this.#connected.resolve()
  }
}
