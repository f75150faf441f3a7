import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { WebsocketGroupsError } from '../../../lib/errors.ts'
import type { Link } from '../../../lib/backplane/redis/link/link.ts'
import { RoutedLink, type Router } from '../../../lib/backplane/redis/link/cluster/routed-link.ts'
import { deferred } from '../../../lib/deadline.ts'

const deadlineMs = 10_000
const waitMs = 50
/** A timer may come a moment too early. */
const mostLeftMs = deadlineMs - waitMs + 2

/** A master whose calls settle as `answer` does; it notes how long each may take. */
function master (answer: () => Promise<unknown>) {
  const sent: number[] = []
  const link = {
    up: true,
    async run (_command: unknown, leftMs: number): Promise<unknown> {
      sent.push(leftMs)
      return await answer()
    }
  }
  return { sent, link: link as unknown as Link }
}

/** A partition's link; `to` already has the keys of calls that are turned away. */
function routed (to: Link | undefined): RoutedLink {
  const router: Router = { moved: async () => {}, linkTo: () => to, suspect () {}, inStep () {} }
  return new RoutedLink('command', deadlineMs, router)
}

const command = async (): Promise<undefined> => undefined

t.test('a call that waited for its new master may take there what is left of its deadline', async t => {
  const under = deferred<unknown>()
  const [before, after] = [master(async () => await under.promise), master(async () => 'done')]
  const link = routed(undefined)
  link.route(before.link)
  const first = link.run(command)
  link.route(after.link)
  const second = link.run(command)
  await sleep(waitMs)
  t.equal(after.sent.length, 0, 'calls that the old master may turn away come first')
  under.resolve('done')
  t.equal(await first, 'done')
  t.equal(await second, 'done')
  t.strictSame(after.sent.map(leftMs => leftMs <= mostLeftMs), [true], `${after.sent.join()} ms left`)
})

t.test('so does a call whose keys are on their way to another master', async t => {
  const cause = new Error('ASK 1 127.0.0.1:7001')
  const from = master(async () => {
    await sleep(waitMs)
    throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', 'ASK', { cause })
  })
  const to = master(async () => 'done')
  const link = routed(to.link)
  link.route(from.link)
  t.equal(await link.run(command), 'done')
  t.strictSame(to.sent.map(leftMs => leftMs <= mostLeftMs), [true], `${to.sent.join()} ms left`)
})
