export type * from './connection-types.ts'
export type * from './log-types.ts'
export type * from './registry-types.ts'
