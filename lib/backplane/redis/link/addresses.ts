import dns from 'node:dns'
import { withDeadline } from '../../../deadline.ts'

/**
 * Resolves with all addresses of a name, in the order of the resolver; with none if the resolver does not know the name, or does not answer
 * within `ms` milliseconds. `family`: 4, 6, or 0 for both. Never rejects.
 */
export async function addressesOf (name: string, family: number, ms: number): Promise<readonly string[]> {
  const found = new Promise<readonly string[]>(resolve => {
    dns.lookup(name, { all: true, family }, (error, addresses) => resolve(error === null ? addresses.map(({ address }) => address) : []))
  })
  return await withDeadline(found, ms, () => [])
}
