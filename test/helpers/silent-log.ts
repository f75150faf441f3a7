import type { LocalInstance } from '../../lib/backplane/backplane.ts'

/** A logger that says nothing. */
export const silentLog = new Proxy({}, {
  get: (_, key) => key === 'child' ? () => silentLog : key === 'level' ? 'silent' : () => {}
}) as LocalInstance['log']
