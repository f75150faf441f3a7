import { Redis, type RedisOptions } from 'ioredis'
import { WebsocketGroupsError } from '../../../errors.ts'
import { isKeyText, keyText } from '../../../options/rules.ts'
import { Keys } from '../keys.ts'

export type RedisSource = string | RedisOptions | Redis

/** What keeps a service apart from others on the same server, beside the plugin's own `keyPrefix`. */
interface Namespace {
  readonly db: number
  /** The `keyPrefix` of the ioredis options: it comes before ours, in channels too, where ioredis itself would leave it out. */
  readonly keyPrefix: string
}

/**
 * The options of ioredis that a source stands for.
 * @throws {WebsocketGroupsError} WSG_OPTION_INVALID: the URL cannot be read; no password is in the message
 */
export function optionsOf (source: RedisSource): RedisOptions {
  if (typeof source === 'string') {
    try {
      return { ...new Redis(source, { lazyConnect: true }).options }
    } catch {
      throw invalid('the URL cannot be read: does its password have characters that must be percent-encoded?')
    }
  }
  return source instanceof Redis || 'duplicate' in source ? (source as Redis).options : source
}

/** @throws {WebsocketGroupsError} WSG_OPTION_INVALID */
export function namespaceOf (source: RedisSource): Namespace {
  const { db = 0, keyPrefix = '' } = optionsOf(source)
  const given: unknown = typeof source === 'string' ? databaseIn(source) : db
  if (!/^\d{1,9}$/.test(String(given))) {
    throw invalid(`the database must be a number from 0 (as in redis://host:6379/1), got ${show(given)}`)
  }
  if (typeof keyPrefix !== 'string' || !isKeyText(keyPrefix) || keyPrefix.length > 100) {
    throw invalid(`the keyPrefix in it must be at most 100 characters ${keyText}: set the option keyPrefix of the plugin instead`)
  }
  return { db: Number(given), keyPrefix }
}

/**
 * The names of a service. The database and the keyPrefix of ioredis keep its channels apart, too, although Redis and ioredis apply neither
 * to channels.
 * @throws {WebsocketGroupsError} WSG_OPTION_INVALID
 */
export function keysOf (source: RedisSource, prefix: string): Keys {
  const { db, keyPrefix } = namespaceOf(source)
  return new Keys(keyPrefix + prefix, db)
}

/** The database as ioredis finds it in a URL, before it is turned into a number. */
function databaseIn (url: string): string {
  const query = url.includes('?') ? url.slice(url.indexOf('?')) : ''
  const { pathname, searchParams } = new URL(url.startsWith('/') ? `unix://socket/${query}` : url)
  const path = pathname.slice(1)
  return path === '' ? searchParams.get('db') ?? '0' : path
}

/** Describes a value. Of a text it gives only the length, because a text in the wrong place may be a password. */
function show (value: unknown): string {
  return typeof value === 'string' ? `text of ${value.length} characters` : String(value)
}

function invalid (detail: string): WebsocketGroupsError {
  return new WebsocketGroupsError('WSG_OPTION_INVALID', `redis: ${detail}`)
}
