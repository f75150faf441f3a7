import { isIPv4, isIPv6 } from 'node:net'
import { textToKeep } from '../kept-bytes.ts'

/** No address is longer, with a zone, brackets and a port (characters). */
const maxLength = 100
/** The one key of all texts that are not addresses. */
const unknown = 'unknown'

/**
 * Private, loopback, link-local and shared (RFC 1918, 3927, 4193, 4291, 6598): a proxy, a container or this machine, but nobody on the
 * Internet.
 */
const privateV4 = /^(?:10|127|169\.254|172\.(?:1[6-9]|2\d|3[01])|192\.168|100\.(?:6[4-9]|[7-9]\d|1[01]\d|12[0-7]))\./
const privateV6 = /^(?:::1$|f[cd]|fe[89ab])/

export function isPrivateAddress (address: string): boolean {
  return privateV4.test(address) || privateV6.test(address)
}

/**
 * The key by which limits per address count: an IPv4 address, or the first 64 bits of an IPv6 address, because one host may use all
 * addresses that share them. Takes `request.ip` of Fastify, which may be any text where Fastify trusts the header of a proxy. All texts
 * that are not addresses count as one address, or clients could make up as many addresses as they like.
 */
export function addressKey (ip: string): string {
  if (ip.length > maxLength) return unknown
  // Some proxies add the port, which differs from connection to connection.
  const bare = textToKeep(ip.replace(/^\[(.*)\](?::\d+)?$|^([\d.]+):\d+$/, '$1$2'))
  if (isIPv4(bare)) return bare
  const address = bare.toLowerCase().replace(/%.*$/, '')
  if (!isIPv6(address)) return unknown
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/.exec(address)?.[1]
  if (mapped !== undefined) return mapped
  if (address === '::1') return address
  const [head = '', tail] = address.split('::')
  const groups = head === '' ? [] : head.split(':')
  if (tail !== undefined) {
    // An IPv4 address at the end stands for two groups.
    const last = tail === '' ? [] : tail.replace(/[^:]*\.[^:]*$/, '0:0').split(':')
    while (groups.length + last.length < 8) groups.push('0')
    groups.push(...last)
  }
  return `${groups.slice(0, 4).map(group => group.replace(/^0+(?=.)/, '')).join(':')}::/64`
}
