import { setTimeout as sleep } from 'node:timers/promises'
import type { Random } from './random.ts'
import type { LinkKind, Wire } from './wire.ts'

const kinds: ReadonlyArray<readonly LinkKind[]> = [['command'], ['subscribe'], ['command', 'subscribe']]

/** What may go wrong between an instance and Redis. `anyWire` draws the instance that it happens to. */
export function linkFaults<Stage extends { readonly random: Random }> (anyWire: (stage: Stage) => Wire) {
  return {
    async linkCut (stage: Stage) {
      for (let n = stage.random.between(1, 3); n > 0; n--) {
        anyWire(stage).cut(...stage.random.pick(kinds))
        await sleep(stage.random.between(0, 150))
      }
    },

    async blackHole (stage: Stage) {
      const wire = anyWire(stage)
      wire.blackhole(...stage.random.pick(kinds))
      await sleep(stage.random.between(200, 5_000))
      wire.lift()
    },

    async slowLinks (stage: Stage) {
      // One link tells of things before the other does, while the other breaks.
      const wire = anyWire(stage)
      for (let n = stage.random.between(3, 8); n > 0; n--) {
        wire.delay('command', stage.random.between(0, 60))
        wire.delay('subscribe', stage.random.between(0, 60))
        wire.cut(stage.random.pick(['command', 'subscribe', 'subscribe']))
        await sleep(stage.random.between(50, 300))
      }
      wire.delay('command', 0)
      wire.delay('subscribe', 0)
    },

    async thinLink (stage: Stage) {
      const wire = anyWire(stage)
      wire.limit(stage.random.between(30, 300) * 1_000)
      await sleep(stage.random.between(500, 3_000))
      if (stage.random.next() < 0.5) wire.cut(...stage.random.pick(kinds))
      await sleep(stage.random.between(0, 1_000))
      wire.limit(Infinity)
    },

    async lostReply (stage: Stage) {
      // Not found when this instance publishes nothing meanwhile, as when Redis is away.
      const wire = anyWire(stage)
      await Promise.race([wire.loseReplyTo('evalsha'), sleep(1_000)])
      wire.keepReplies()
    }
  }
}
