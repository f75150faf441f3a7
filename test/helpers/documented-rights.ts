import { readFileSync } from 'node:fs'

/** All that docs/redis.md gives a user: the words of its ACL SETUSER line, without name and password. */
export function documentedRights (user: string): string[] {
  const page = readFileSync('docs/redis.md', 'utf8').replaceAll('\\\n', ' ')
  const [, words = ''] = new RegExp(`^ACL SETUSER ${user} on >\\S+ (.*)$`, 'm').exec(page) ?? []
  return words.split(/\s+/).filter(word => word !== '')
}
