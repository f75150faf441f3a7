import t from 'tap'
import { addressKey, isPrivateAddress } from '../../../lib/http/address.ts'

t.test('addresses are counted one by one under IPv4, by their first 64 bits under IPv6', async t => {
  const keys: ReadonlyArray<readonly [ip: string, key: string]> = [
    ['203.0.113.7', '203.0.113.7'],
    ['::ffff:203.0.113.7', '203.0.113.7'],
    ['::1', '::1'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    ['2001:DB8:1:2::9', '2001:db8:1:2::/64'],
    ['2001:0db8:0001:0002::', '2001:db8:1:2::/64'],
    ['2001:db8::1', '2001:db8:0:0::/64'],
    ['2001:db8::1:2:3:4:5', '2001:db8:0:1::/64'],
    ['2001:db8::1:2:3.4.5.6', '2001:db8:0:0::/64'],
    ['fe80::1%eth0', 'fe80:0:0:0::/64'],
    ['203.0.113.7:51234', '203.0.113.7'],
    ['[2001:db8:1:2::9]:443', '2001:db8:1:2::/64'],
    ['[2001:db8:1:2::9]', '2001:db8:1:2::/64'],
    ['unknown', 'unknown'],
    ['203.0.113.7.example', 'unknown'],
    ['::ffff:999.1.2.3', 'unknown'],
    ['[::ffff:203.0.113.7]:51234', '203.0.113.7'],
    ['made up', 'unknown'],
    ['1'.repeat(10_000), 'unknown'],
    ['', 'unknown']
  ]
  for (const [ip, key] of keys) t.equal(addressKey(ip), key, ip)
})

t.test('a private address is none of the Internet', async t => {
  const own = [
    '127.0.0.1', '10.1.2.3', '172.16.0.1', '172.31.255.255', '192.168.1.1', '169.254.1.1', '100.64.0.1', '::1', 'fd00::1', 'fe80::1'
  ]
  for (const ip of own) t.ok(isPrivateAddress(ip), ip)
  const others = ['203.0.113.7', '172.32.0.1', '172.15.0.1', '100.63.0.1', '100.128.0.1', '11.0.0.1', '2001:db8::1']
  for (const ip of others) t.notOk(isPrivateAddress(ip), ip)
})
