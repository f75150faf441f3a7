import type { LocalInstance, Target } from '../backplane/backplane.ts'
import { MemoryBackplane } from '../backplane/memory/index.ts'
import { WebsocketGroupsError } from '../errors.ts'

/** A memory backplane that a test can take out, as Redis can be out, and whose instance can die. */
export class SwitchedMemory extends MemoryBackplane {
  /** Subscriptions that were refused during the outage, to be made when it is over. */
  readonly #due = new Set<Target>()
  #local: LocalInstance | undefined
  #out = false

  override get state (): 'up' | 'down' {
    return this.#out ? 'down' : super.state
  }

  override async start (local: LocalInstance): Promise<void> {
    this.#local = local
    await super.start(local)
  }

  override async subscribe (target: Target): Promise<void> {
    if (!this.#out) return await super.subscribe(target)
    this.#due.add(target)
    throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', 'the test took the backplane out')
  }

  override unsubscribe (target: Target): void {
    for (const due of this.#due) if (due.kind === target.kind && due.name === target.name) this.#due.delete(due)
    super.unsubscribe(target)
  }

  override async syncMember (): Promise<void> {
    if (this.#out) throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', 'the test took the backplane out')
  }

  async setOut (out: boolean): Promise<void> {
    if (this.#out === out) return
    this.#out = out
    // A target that was unsubscribed meanwhile is not subscribed again.
    for (const target of out ? [] : [...this.#due]) if (this.#due.delete(target)) await super.subscribe(target)
    this.#local?.stateChanged()
  }

  /** Called when another instance died, and its members are gone with it. */
  instanceDied (): void {
    this.#local?.membersLost?.()
  }
}
