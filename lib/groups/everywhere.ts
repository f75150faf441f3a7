import type { Backplane, Target } from '../backplane/backplane.ts'
import { isOutage, WebsocketGroupsError } from '../errors.ts'
import type { Data } from '../types.ts'
import type { Command, InstanceRpc } from './rpc.ts'

/** How long to wait before an instance that cannot be reached is asked again (milliseconds). */
const againMs = 100
/** How much of the time one request to all instances may take; the rest is for asking those that did not answer, one by one. */
const togetherShare = 0.5

/** The instance is dead: its lease has ended. */
const gone = Symbol('gone')
/** The instance is alive and may have got the request, but did not answer in time. */
const silent = Symbol('silent')
/** The instance is alive, and certainly did not get the request. */
const unreached = Symbol('unreached')

/** What all instances behind a target answered. */
interface Gathered {
  /** The answers by instance id, that of this instance included. */
  readonly answers: ReadonlyMap<string, unknown>
  /** The ids of the live instances that did not answer. */
  readonly missing: readonly string[]
  /** Whether it is certain that none of the missing instances got the request. */
  readonly sure: boolean
  /** Whether answers are missing and the backplane cannot tell which instances live. */
  readonly unknown: boolean
}

/**
 * Asks instances, and tells those that are gone from those that hang or lost their subscriptions: while the lease of an instance runs, its
 * connections may still be open.
 */
export class Everywhere {
  readonly #backplane: Pick<Backplane, 'instances'>
  readonly #rpc: InstanceRpc
  readonly #self: string

  constructor (backplane: Pick<Backplane, 'instances'>, rpc: InstanceRpc, self: string) {
    this.#backplane = backplane
    this.#rpc = rpc
    this.#self = self
  }

  /**
   * Resolves with the answer of one instance; with `undefined` when the instance is gone. An instance that is alive but cannot be reached
   * is asked again until the deadline.
   * @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE (not reached), WSG_TIMEOUT (no answer), and what the instance threw
   */
  async askOne (instanceId: string, command: Command, data?: Data): Promise<unknown> {
    const answer = await this.#until(performance.now() + this.#rpc.timeoutMs, instanceId, command, data)
    if (answer === gone) return undefined
    if (answer === unreached) {
      throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', `instance ${instanceId} lives, but is not connected to the backplane now`)
    }
    if (answer === silent) throw new WebsocketGroupsError('WSG_TIMEOUT', `${command.op} was not answered by instance ${instanceId}`)
    return answer
  }

  /**
   * Asks all instances behind the target to close connections, or to put them into or out of a group. Resolves with how many connections
   * those were, the `here` of this instance included. The command must do no harm when it is carried out twice. `stored`: an instance that
   * cannot be reached now carries the command out as soon as it is back.
   * @throws {WebsocketGroupsError} WSG_TIMEOUT when some living instances did not answer, or WSG_BACKPLANE_UNAVAILABLE when it is certain
   * that nothing was done. The error says for how many connections the command was carried out nevertheless, and which instances did not
   * answer.
   */
  async act (target: Target, command: Command, here: number, stored = false): Promise<number> {
    const gathered = await withDone(here, this.gather(target, command, here, stored))
    const done = sum(gathered.answers)
    if (isComplete(gathered)) return done
    const { missing, sure } = gathered
    throw incomplete(done === 0 && sure, command, `was done for ${done} connections, and`, missing, done)
  }

  /**
   * Asks all instances behind the target for what they hold. Resolves with the answers, the `here` of this instance among them.
   * @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE when living instances were not reached, WSG_TIMEOUT when some did not answer.
   * The error names them.
   */
  async all (target: Target, command: Command, here: unknown): Promise<readonly unknown[]> {
    const gathered = await this.gather(target, command, here)
    if (isComplete(gathered)) return [...gathered.answers.values()]
    throw incomplete(gathered.sure, command, 'was', gathered.missing)
  }

  /**
   * Resolves with the answers of all instances behind the target; `here` is that of this instance. Live instances that did not answer with
   * the others are asked once more, one by one. `stored`: instances that cannot be reached now need not be asked.
   * @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT (of the publish), and what an instance threw
   */
  async gather (target: Target, command: Command, here: unknown, stored = false): Promise<Gathered> {
    const endsAt = performance.now() + this.#rpc.timeoutMs
    const gathered = new Map<string, unknown>([[this.#self, here]])
    // Both at the same time, so that an instance that was cut off when asked counts as cut off.
    const [{ answers, complete }, living] = await Promise.all([
      this.#rpc.collect(target, command, this.#rpc.timeoutMs * togetherShare), this.#backplane.instances?.()
    ])
    for (const [instanceId, answer] of answers) if (instanceId !== this.#self) gathered.set(instanceId, answer)
    const others = [...living ?? []].filter(([instanceId]) => !gathered.has(instanceId))
    const asked = others.filter(([, reachable]) => reachable ? !complete : !stored)
    const outcomes = await Promise.all(asked.map(async ([instanceId]) => {
      return [instanceId, await this.#until(endsAt, instanceId, command)] as const
    }))
    for (const [instanceId, outcome] of outcomes) if (typeof outcome !== 'symbol') gathered.set(instanceId, outcome)
    const missing = outcomes.filter(([, outcome]) => outcome === silent || (outcome === unreached && !stored))
    const unknown = !complete && living === undefined
    return {
      answers: gathered,
      missing: missing.map(([instanceId]) => instanceId),
      sure: !unknown && missing.every(([, outcome]) => outcome === unreached),
      unknown
    }
  }

  /** Resolves with the answer, `gone`, `silent` or `unreached`. Rejects with what the instance threw. */
  async #until (endsAt: number, instanceId: string, command: Command, data?: Data): Promise<unknown> {
    const target: Target = { kind: 'instance', name: instanceId }
    for (;;) {
      const leftMs = Math.max(1, endsAt - performance.now())
      const { answers, complete } = await this.#rpc.collect(target, command, leftMs, data)
      if (!complete) return silent
      if (answers.size > 0) return [...answers.values()][0]
      const living = await this.#backplane.instances?.()
      if (living?.has(instanceId) !== true) return gone
      await new Promise<void>(resolve => { setTimeout(resolve, againMs) })
      // A request without time for its answer would leave open whether it arrived.
      if (endsAt - performance.now() < againMs) return unreached
    }
  }
}

/**
 * Waits for what is done elsewhere, after this instance has done its part for `here` connections.
 * @throws {WebsocketGroupsError} in an outage with `done`: the backplane alone cannot know what this instance did
 */
export async function withDone<Value> (here: number, elsewhere: Promise<Value>): Promise<Value> {
  try {
    return await elsewhere
  } catch (error) {
    if (here === 0 || !isOutage(error)) throw error
    const { code, detail = 'other instances were not reached' } = error as WebsocketGroupsError
    const outcome = `${detail}; the call took effect for ${here} connections of this instance`
    throw new WebsocketGroupsError(code, outcome, { cause: error, done: here })
  }
}

function sum (answers: ReadonlyMap<string, unknown>): number {
  return [...answers.values()].reduce<number>((sum, closed) => sum + Number(closed), 0)
}

function isComplete ({ missing, unknown }: Gathered): boolean {
  return missing.length === 0 && !unknown
}

/** `sure`: it is certain that nothing was done. `outcome` is what the message says of it. */
function incomplete (sure: boolean, command: Command, outcome: string, missing: readonly string[], done?: number): WebsocketGroupsError {
  const names = missing.length === 0 ? 'some instances' : `instances that live: ${missing.join(', ')}`
  const what = command.op === 'user' ? command.act.op : command.op
  const detail = `${what} ${outcome} not answered by ${names}`
  return new WebsocketGroupsError(sure ? 'WSG_BACKPLANE_UNAVAILABLE' : 'WSG_TIMEOUT', detail, { done, missing })
}
