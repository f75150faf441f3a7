export type * from './connection-types.ts'
export type * from './metrics/types.ts'
export type * from './protocol/logs.ts'
export type * from './registry-types.ts'
