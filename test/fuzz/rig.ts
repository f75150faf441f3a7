// What the fuzz tests share: how many inputs, the service under attack, and the bystander that it has to go on serving.
//
//   npm test -- test/fuzz                                5,000 inputs in all
//   node scripts/fuzz.mjs --inputs 100000                the long form
//   FUZZ_SEED=… npx tap run test/fuzz/framed.test.ts     other inputs than those of seed 1
import fc from 'fast-check'
import Fastify, { type FastifyInstance } from 'fastify'
import type { AddressInfo } from 'node:net'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type { Test } from 'tap'
import websocketGroups, { type WebsocketGroupsOptions } from '../../plugin.ts'
import { connect, type TestClient } from '../helpers/client.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { until } from '../helpers/until.ts'

/** raw socket, framed protocol, Redis, options, tokens */
const places = 5
const inputs = Math.ceil(Number(process.env.FUZZ_INPUTS ?? 5_000) / places)
const seed = Number(process.env.FUZZ_SEED ?? 1)
/** So many inputs are tried at the same time. */
const atOnce = 20
const bystanderMs = 20
/** Beyond what varies by itself; far below what a thousand inputs that stay would take. */
const maxGrowthBytes = 12_000_000
/** In the long form growth counts from here on: by then all that has a limit, such as logs, is as large as it gets. */
const warmInputs = 4_000

let tried = 0
/** Of memory in use when so many inputs had been tried. */
let warmBytes: number | undefined

/** Inputs that were judged wrong. */
const failures: string[] = []

/** Tries inputs of this kind. The first one that `judge` rejects ends it, and fails the test when it finishes. */
export async function fuzz<Input> (t: Test, kind: fc.Arbitrary<Input>, judge: (input: Input) => Promise<void>): Promise<void> {
  t.comment(`FUZZ_SEED=${seed}, ${inputs} inputs`)
  const several = fc.array(kind, { minLength: atOnce, maxLength: atOnce })
  const property = fc.asyncProperty(several, async batch => {
    await Promise.all(batch.map(judge))
    tried += batch.length
    if (inputs > warmInputs && tried >= warmInputs) warmBytes ??= heapBytes()
  })
  try {
    await fc.assert(property, { seed, numRuns: Math.ceil(inputs / atOnce), endOnFailure: true })
  } catch (error) {
    failures.push(String(error instanceof Error && error.cause !== undefined ? error.cause : error))
    t.comment(failures.at(-1) ?? '')
  }
}

interface Attacked {
  readonly app: FastifyInstance
  /** `http://127.0.0.1:<port>` */
  readonly url: string
  readonly port: number
  /** Fails the test unless the bystander was served throughout, and all that inputs caused is gone. */
  finish (): Promise<void>
}

/** A service with a bystander: one connection, of whose messages each has to come back. */
export async function attacked (t: Test, options: WebsocketGroupsOptions, routes: (app: FastifyInstance) => void): Promise<Attacked> {
  const { errors } = noUnhandled(t)
  t.setTimeout(Math.max(120_000, 200 * inputs))
  const app = Fastify({ bodyLimit: 100_000 })
  t.teardown(async () => await app.close())
  await app.register(websocketGroups, { closeGraceMs: 200, lingerMs: 50, ...options })
  app.wsRoom('/bystander/:room', { auth: false, group: ({ room }) => `bystander-${room}` })
  routes(app)
  const url = await app.listen({ port: 0, host: '127.0.0.1' })
  const bystander = connect(t, `${url}/bystander/quiet`)
  await bystander.opened
  await until(() => app.registry.stats().groups === 1)
  const served = serve(bystander)
  t.teardown(() => served.end())
  const before = heapBytes()
  return {
    app,
    url,
    port: (app.server.address() as AddressInfo).port,
    async finish () {
      await until(() => Number(app.registry.stats().connections) === 1, { what: 'the connections of the inputs to be gone' })
        .catch(error => failures.push(String(error)))
      const { sent, slowestMs } = await served.stop()
      await until(() => ['intakeBytes', 'bufferedBytes', 'socketsPaused'].every(name => (app.registry.stats()[name] ?? 0) === 0))
      const isBounded = (): boolean => heapBytes() - (warmBytes ?? before) < maxGrowthBytes
      await until(isBounded, { timeoutMs: 10_000, everyMs: 500, what: 'what inputs left in memory to go' })
        .catch(error => failures.push(String(error)))
      t.same(failures, [], 'every input was dealt with as it should be')
      t.equal(bystander.ws.readyState, bystander.ws.OPEN, 'the bystander was not closed')
      t.equal(bystander.messages.length, sent, 'each message of the bystander came back')
      t.comment(`${sent} messages of the bystander, the slowest after ${Math.round(slowestMs)} ms`)
      t.same(errors, [], 'nothing is unhandled')
    }
  }
}

function serve (client: TestClient): { end (): void, stop (): Promise<{ sent: number, slowestMs: number }> } {
  const sentAt: number[] = []
  let slowestMs = 0
  client.ws.on('message', (data: Buffer) => { slowestMs = Math.max(slowestMs, performance.now() - (sentAt[Number(data.toString())] ?? 0)) })
  const timer = setInterval(() => client.send(String(sentAt.push(performance.now()) - 1)), bystanderMs)
  return {
    end () { clearInterval(timer) },
    async stop () {
      clearInterval(timer)
      await until(() => client.messages.length >= sentAt.length, { what: 'the answers of the bystander' })
      return { sent: sentAt.length, slowestMs }
    }
  }
}

setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

function heapBytes (): number {
  collectGarbage()
  const { heapUsed, arrayBuffers } = process.memoryUsage()
  return heapUsed + arrayBuffers
}
