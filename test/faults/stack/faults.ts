import { setTimeout as sleep } from 'node:timers/promises'
import { linkFaults } from '../chaos/link-faults.ts'
import type { Random } from '../chaos/random.ts'
import type { Crowd } from './crowd.ts'
import type { Instance, Stack } from './stack.ts'

export interface Stage { readonly stack: Stack, readonly crowd: Crowd, readonly random: Random }
type Fault = (stage: Stage) => Promise<void>

function anyInstance ({ stack, random }: Stage): Instance {
  return random.pick(stack.instances)
}

/**
 * What may go wrong beside the servers (see `Store.faults`). Each is over, and healed, when its promise resolves; what follows from it may
 * go on.
 */
export const faults: Readonly<Record<string, Fault>> = {
  ...linkFaults<Stage>(stage => stage.random.pick(anyInstance(stage).wires)),

  async clientsCut ({ crowd, random }) {
    for (let n = random.between(1, 3); n > 0; n--) {
      crowd.cut(random.between(1, 100) / 100)
      await sleep(random.between(0, 400))
    }
  },

  async clientsComeAndGo ({ crowd, random }) {
    for (let n = random.between(3, 8); n > 0; n--) {
      crowd.move()
      await sleep(random.between(0, 200))
    }
  },

  async instanceKilled (stage) {
    const instance = anyInstance(stage)
    await stage.stack.kill(instance)
    await stage.stack.spawn(instance)
  },

  async instanceClosed (stage) {
    const instance = anyInstance(stage)
    await stage.stack.stop(instance)
    await stage.stack.spawn(instance)
  },

  async instanceStopped (stage) {
    const { process } = anyInstance(stage)
    process.kill('SIGSTOP')
    await sleep(stage.random.between(200, 4_000))
    process.kill('SIGCONT')
  }
}

/** Those that may happen while another one is not over yet. */
export const light = ['linkCut', 'lostReply', 'scriptFlush', 'redisClientsKilled', 'clientsCut', 'clientsComeAndGo'] as const
