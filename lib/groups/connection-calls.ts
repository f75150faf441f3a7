import { assertClose } from '../connection/close.ts'
import { assertTags } from '../delivery/audience.ts'
import { assertPosition } from '../delivery/backlog.ts'
import { checkCall } from '../options/calls.ts'
import { CloseCode } from '../protocol/close-codes.ts'
import type {
  CloseOptions, Data, GroupList, GroupListOptions, JoinOptions, JoinResult, LeaveOptions, UserTarget
} from '../types.ts'
import { assertNamed, isUser, type Named, type RemoteCommands } from './remote-commands.ts'

/** What carries the calls out: `ConnectionCommands` of an instance, or `RemoteCommands` of a process without sockets. */
type Commands = Pick<RemoteCommands,
  'join' | 'joinUser' | 'leave' | 'leaveUser' | 'leaveAll' | 'groups' | 'groupsOfUser' | 'send' | 'disconnect' | 'disconnectUser' |
  'groupList' | 'connectionCount' | 'userCount'
>

/** The public calls that act on one connection or on all connections of a user: the same for `app.registry` and for a publisher. */
export class ConnectionCalls {
  readonly #commands: () => Commands

  /** `commands` throws while no call is allowed. */
  constructor (commands: () => Commands) {
    this.#commands = commands
  }

  join (connection: Named, group: string, options?: JoinOptions): Promise<JoinResult>
  join (user: UserTarget, group: string, options?: JoinOptions): Promise<number>
  async join (who: Named | UserTarget, group: string, options?: JoinOptions): Promise<JoinResult | number> {
    checkCall('join', options)
    if (options?.since !== undefined) assertPosition(options.since)
    if (options?.tags !== undefined) assertTags(options.tags, 'tags')
    if (isUser(who)) return await this.#commands().joinUser(who.userId, group, options)
    return await this.#commands().join(who, group, options)
  }

  leave (connection: Named, group: string, options?: LeaveOptions): Promise<boolean>
  leave (user: UserTarget, group: string, options?: LeaveOptions): Promise<number>
  async leave (who: Named | UserTarget, group: string, options: LeaveOptions = {}): Promise<boolean | number> {
    checkCall('leave', options)
    const { reason } = options
    if (reason !== undefined) assertClose(CloseCode.Normal, reason)
    if (isUser(who)) return await this.#commands().leaveUser(who.userId, group, reason)
    assertNamed(who)
    return await this.#commands().leave(who, group, reason)
  }

  async leaveAll (connection: Named): Promise<number> {
    assertNamed(connection)
    return await this.#commands().leaveAll(connection)
  }

  async groups (who: Named | UserTarget): Promise<readonly string[]> {
    if (isUser(who)) return await this.#commands().groupsOfUser(who.userId)
    return await this.#commands().groups(who)
  }

  async sendTo (connectionId: string, data: Data): Promise<boolean> {
    assertNamed(connectionId)
    return await this.#commands().send(connectionId, data)
  }

  async disconnect (who: Named | UserTarget, options: CloseOptions = {}): Promise<number> {
    checkCall('disconnect', options)
    const { code = CloseCode.Normal, reason = '' } = options
    if (isUser(who)) return await this.#commands().disconnectUser(who.userId, code, reason)
    assertNamed(who)
    return await this.#commands().disconnect(who, code, reason)
  }

  async groupList (options?: GroupListOptions): Promise<GroupList> {
    checkCall('groupList', options)
    return await this.#commands().groupList(options)
  }

  async connectionCount (): Promise<number> {
    return await this.#commands().connectionCount()
  }

  async userCount (): Promise<number> {
    return await this.#commands().userCount()
  }
}
