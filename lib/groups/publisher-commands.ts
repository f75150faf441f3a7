import type { LogPage, LogPosition } from '../backplane/backplane.ts'
import { blockRevocationMs, everyGroup, namesOfUser, revocationMs } from '../delivery/revocations.ts'
import { assertGroupName } from '../group-name.ts'
import type { GroupLogs } from '../options/group-logs.ts'
import { userOfBlock } from './blocklist.ts'
import type { Everywhere } from './everywhere.ts'
import { RemoteCommands } from './remote-commands.ts'

interface LogsAndRevocations {
  history (group: string, since: undefined, limit: number): Promise<LogPage>
  /** As `Backplane.revoke`, at the current time of Redis. */
  revoke (group: string, names: readonly string[], position: LogPosition | undefined, forMs: number): Promise<void>
}

/** The calls of a process without sockets. Instances carry them out; revocations of clients that are away are stored from here. */
export class PublisherCommands extends RemoteCommands {
  readonly #backplane: LogsAndRevocations
  readonly #logs: GroupLogs

  constructor (everywhere: Everywhere, self: string, backplane: LogsAndRevocations, logs: GroupLogs) {
    super(everywhere, self)
    this.#backplane = backplane
    this.#logs = logs
  }

  /** Also revokes what connections of the user that are away could prove: they do not get what is said from now on. */
  override async leaveUser (userId: string, group: string, reason?: string): Promise<number> {
    assertGroupName(group)
    await this.#putOut(userId, group)
    const left = await super.leaveUser(userId, group, reason)
    // Revoke once more: messages that reached a connection before it left must not prove a right to later ones.
    await this.#putOut(userId, group)
    return left
  }

  /** Also revokes what connections of the user that are away could prove in any group, for when the block is over. */
  override async block (name: string, forMs: number): Promise<number> {
    const userId = userOfBlock(name)
    const revoked = userId === undefined || forMs === 0
      ? undefined
      : this.#backplane.revoke(everyGroup, namesOfUser(userId), undefined, blockRevocationMs(forMs))
    // Do both at the same time: an unblock that follows waits for no revocation, and must not reach the instances before the block.
    const [closed] = await Promise.all([super.block(name, forMs), revoked])
    return closed
  }

  async #putOut (userId: string, group: string): Promise<void> {
    if (!this.#logs.has(group)) return
    const { end } = await this.#backplane.history(group, undefined, 1)
    await this.#backplane.revoke(group, namesOfUser(userId), end, revocationMs(this.#logs, group))
  }
}
