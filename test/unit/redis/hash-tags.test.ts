import t from 'tap'
import { createHash } from 'node:crypto'
import { hashTags, partitionOf, slotCount, slotOf } from '../../../lib/backplane/redis/hash-tags.ts'

t.test('the slot of a tag is that of Redis', async t => {
  // CLUSTER KEYSLOT of redis-server 7.0.15
  t.strictSame(['123456789', 'foo', '0', 'hello', ''].map(slotOf), [12_739, 12_182, 13_907, 866, 0])
})

t.test('256 tags have evenly spaced slots, and never change', async t => {
  const tags = hashTags(256)
  t.strictSame(tags.map(slotOf), Array.from({ length: 256 }, (_, index) => 64 * index + 32))
  t.ok(tags.every(tag => tag.length <= 4), 'they are short')
  t.equal(createHash('sha1').update(tags.join()).digest('hex'), 'aa4c1eb526388a45509d02e4a0ec929a862076ac', 'names in Redis depend on them')
})

t.test('masters that share the slots evenly share the partitions evenly', async t => {
  const slots = hashTags(256).map(slotOf)
  for (let masters = 1; masters <= 16; masters++) {
    // The ranges of `redis-cli --cluster create`.
    const ends = Array.from({ length: masters }, (_, index) => Math.round((index + 1) * slotCount / masters))
    const counts = ends.map((end, index) => slots.filter(slot => slot < end && slot >= (ends[index - 1] ?? 0)).length)
    t.ok(Math.max(...counts) - Math.min(...counts) <= 1, `${masters} masters: ${counts.join()}`)
  }
})

t.test('names are spread over the partitions, and where they are never changes', async t => {
  t.strictSame(['', 'lobby', 'room:1', 'room:2', 'ü🦊'].map(name => partitionOf(name, 256)), [205, 233, 133, 163, 190])
  t.ok(['', 'lobby', 'ü🦊'].every(name => partitionOf(name, 1) === 0))
  for (const prefix of ['room:', '', 'user/2026-11-', 'ü']) {
    const counts = new Array<number>(256).fill(0)
    for (let n = 0; n < 256_000; n++) {
      const partition = partitionOf(prefix + n, 256)
      counts[partition] = (counts[partition] ?? 0) + 1
    }
    // A thousand each, give or take what chance does: a standard deviation is 32.
    t.ok(Math.min(...counts) > 800 && Math.max(...counts) < 1_200, `${prefix}: ${Math.min(...counts)} to ${Math.max(...counts)}`)
  }
})
