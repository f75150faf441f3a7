import { parseArgs } from 'node:util'

export const usage = `Usage: npx fastify-websocket-groups bench <address> --room <name> [options]

Connects clients to a route, lets some of them send to their room, and measures what arrives at the others, and when.

  npx fastify-websocket-groups bench 'ws://127.0.0.1:3000/ws/{room}' --room lobby --clients 1000

Where the address has {room}, the route puts its clients into the room; elsewhere clients of the framed protocol join it.

  --room <name>          the room; several times for several rooms, which clients are spread over
  --rooms <number>       as many rooms, called <name>-1 and so on
  --clients <number>     in all rooms together (100)
  --rate <number>        messages per second, in all rooms together (10)
  --seconds <number>     how long it measures (10)
  --bytes <number>       size of a message (120)
  --senders <number>     how many clients of each room take turns in sending (10)
  --message <template>   what is sent, where the route wants more than text: {message} stands for the message,
                         such as '{"type":"say","data":{"text":"{message}"}}'
  --protocol <name>      raw: any WebSocket; framed: as the client of this package, which comes back after a break (raw)
  --token <token>        who the clients are; {n} stands for the number of the client
  --header <line>        a header of each upgrade, such as 'cookie: session={n}'; several times for several
  --connect-rate <number>  how many clients connect in a second (200)
  --timeout <seconds>    how long connecting, joining and the last deliveries may take (15)
  --json                 prints the result as JSON
  --version, --help

The program exits with 1 when clients were refused or cut off, or messages were lost, doubled or out of order.`

/** The arguments are wrong; the message says what would be right. */
export class UsageError extends Error {}

export type BenchProtocol = 'raw' | 'framed'

export interface BenchSettings {
  /** May have `{room}` and `{n}` in it. */
  readonly address: string
  readonly rooms: readonly string[]
  readonly clients: number
  readonly rate: number
  readonly seconds: number
  readonly bytes: number
  readonly senders: number
  readonly message: string
  readonly protocol: BenchProtocol
  readonly token: string | undefined
  readonly headers: ReadonlyArray<readonly [name: string, value: string]>
  readonly connectRate: number
  readonly timeoutMs: number
  readonly json: boolean
}

/** A message names its run and its number: shorter ones have no room for that. */
const minBytes = 40
const maxClients = 100_000
const maxRate = 100_000

const options = {
  room: { type: 'string', multiple: true },
  rooms: { type: 'string' },
  clients: { type: 'string' },
  rate: { type: 'string' },
  seconds: { type: 'string' },
  bytes: { type: 'string' },
  senders: { type: 'string' },
  message: { type: 'string' },
  protocol: { type: 'string' },
  token: { type: 'string' },
  header: { type: 'string', multiple: true },
  'connect-rate': { type: 'string' },
  timeout: { type: 'string' },
  json: { type: 'boolean' }
} as const

/** @throws {UsageError} */
export function parseBench (args: readonly string[]): BenchSettings {
  const { values, positionals: [address, ...more] } = parse(args)
  if (address === undefined || more.length > 0) throw new UsageError('give one address, such as ws://127.0.0.1:3000/ws/{room}')
  const named = values.room ?? []
  if (named.length === 0) throw new UsageError('give --room, the name of the room that the clients talk in')
  const integer = (
    name: 'rooms' | 'clients' | 'rate' | 'seconds' | 'bytes' | 'senders' | 'connect-rate' | 'timeout', usual: number, from: number,
    to: number
  ): number => {
    const given = values[name]
    const number = given === undefined ? usual : /^\d+$/.test(given) ? Number(given) : NaN
    if (!(number >= from && number <= to)) throw new UsageError(`--${name} must be an integer from ${from} to ${to}, not ${given}`)
    return number
  }
  const { protocol = 'raw', message = '{message}' } = values
  if (protocol !== 'raw' && protocol !== 'framed') throw new UsageError(`--protocol must be raw or framed, not ${protocol}`)
  if (!message.includes('{message}')) throw new UsageError('--message must have {message} in it, where the message goes')
  if (!address.includes('{room}') && protocol === 'raw') {
    throw new UsageError('write {room} where the room goes in the address: clients of the raw protocol cannot join by themselves')
  }
  const clients = integer('clients', 100, 2, maxClients)
  const roomCount = integer('rooms', 1, 1, maxClients)
  const rooms = roomCount === 1 ? named : named.flatMap(name => Array.from({ length: roomCount }, (_, at) => `${name}-${at + 1}`))
  if (clients < rooms.length * 2) throw new UsageError(`--clients ${clients} are too few: each of ${rooms.length} rooms needs two`)
  const settings: BenchSettings = {
    address: websocketAddress(address),
    rooms,
    clients,
    rate: integer('rate', 10, 1, maxRate),
    seconds: integer('seconds', 10, 1, 86_400),
    bytes: integer('bytes', 120, minBytes, 16_777_216),
    senders: integer('senders', 10, 1, maxClients),
    message,
    protocol,
    token: values.token,
    headers: (values.header ?? []).map(toHeader),
    connectRate: integer('connect-rate', 200, 1, maxRate),
    timeoutMs: integer('timeout', 15, 1, 3_600) * 1_000,
    json: values.json === true
  }
  return settings
}

type Arguments = ReturnType<typeof parseArgs<{ options: typeof options, allowPositionals: true }>>

function parse (args: readonly string[]): Arguments {
  try {
    return parseArgs({ args: [...args], options, allowPositionals: true })
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error))
  }
}

function websocketAddress (address: string): string {
  const text = address.replace(/^http/, 'ws')
  if (!/^wss?:\/\//.test(text) || !URL.canParse(text)) {
    throw new UsageError(`the address must begin with ws:// or wss://, not ${withoutQuery(address)}`)
  }
  return text
}

/** What may be shown of an address: a query may have a token in it. */
export function withoutQuery (address: string): string {
  return address.replace(/\?.*$/, '').replace(/\/\/[^/]*@/, '//')
}

function toHeader (line: string): readonly [string, string] {
  const [, name, value] = /^([\w!#$%&'*+.^`|~-]+): *([\t\x20-\x7e\x80-\xff]*)$/.exec(line) ?? []
  if (name === undefined || value === undefined) throw new UsageError('--header must be a line such as \'cookie: session=abc\'')
  return [name, value]
}
