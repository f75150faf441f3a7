import { isIPv6 } from 'node:net'

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
 * What limits per address count by: an IPv4 address, or the first 64 bits of an IPv6 address, as one host may use all that share them.
 * Takes what Fastify calls `request.ip`.
 */
export function addressKey (ip: string): string {
  // An IPv4 address, as most are, is its own key.
  if (!ip.includes(':')) return ip
  const address = ip.toLowerCase().replace(/%.*$/, '')
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/.exec(address)?.[1]
  if (mapped !== undefined) return mapped
  if (!isIPv6(address) || address === '::1') return address
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
