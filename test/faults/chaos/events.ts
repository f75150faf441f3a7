import type { GapReason } from '../../../lib/backplane/backplane.ts'

/** What an instance under test reports, in the order it happened. Epochs are in hex. */
export type Report =
  /** It follows the group from this position on. */
  | ['open', group: number, epoch: string, offset: number, nonce: number]
  | ['got', group: number, epoch: string, offset: number, nonce: number, id: string]
  /** As `got`, but nobody is given the message: it was delivered before its log lost data, and was stored anew. */
  | ['repeated', group: number, epoch: string, offset: number, nonce: number, id: string]
  | ['gap', group: number, reason: GapReason, epoch: string, offset: number, nonce: number]
  | ['stored', group: number, epoch: string, offset: number, nonce: number, id: string, queued: boolean]
  | ['failed', code: string, id: string]
  /** It was told to stop publishing, and nothing of it is under way any more. */
  | ['idle']

export type Order = { readonly publish: number } | { readonly stop: true }

export interface Assignment {
  readonly url: string
  readonly groups: readonly { readonly name: string, readonly keep: number }[]
  readonly policy: 'reject' | 'queue'
  readonly seed: number
}
