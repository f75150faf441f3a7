// The process that publishes for `log-cost`: log-publisher.ts <redis URL> [before]
import * as websocketGroups from 'fastify-websocket-groups'
import type { PublisherOptions } from 'fastify-websocket-groups'
import { beforePackage } from '../systems/before-package.ts'
import { expose } from './child.ts'

const [, , redis = '', which] = process.argv
const build = which === 'before' ? await beforePackage() ?? websocketGroups : websocketGroups
const payload = 'x'.repeat(200)

export interface Load {
  readonly log: PublisherOptions['log']
  readonly groups: number
  /** Messages to each group that are under way at the same time: what waits for an append goes out with the next one. */
  readonly together: number
  readonly withKey?: boolean
}

let publisher: ReturnType<typeof websocketGroups.createPublisher> | undefined
let load: Load = { log: false, groups: 0, together: 0 }

const api = {
  open (given: Load): void {
    load = given
    publisher = build.createPublisher({ redis, operationTimeoutMs: 10_000, ...(load.log === undefined ? {} : { log: load.log }) })
  },
  /** Resolves once so many messages are stored, with the CPU of this process that they took (microseconds). */
  async publish (messages: number): Promise<number> {
    const before = process.cpuUsage()
    let sent = 0
    await Promise.all(Array.from({ length: load.groups * load.together }, async (_, i) => {
      while (sent < messages) {
        sent++
        const options = load.withKey === true ? { idempotencyKey: `${process.hrtime.bigint()} ${sent}` } : {}
        await publisher?.broadcastToGroup(`group${i % load.groups}`, payload, options)
      }
    }))
    const { user, system } = process.cpuUsage(before)
    return user + system
  },
  async close (): Promise<void> {
    await publisher?.close()
  }
}
export type LogPublisherApi = typeof api
expose(api)
