import type { FastifyBaseLogger } from 'fastify'

/** A logger that says nothing. */
export const silentLog = new Proxy({}, {
  get: (_, key) => key === 'child' ? () => silentLog : key === 'level' ? 'silent' : () => {}
}) as FastifyBaseLogger

export interface RecordedLine { readonly msg: string, readonly [field: string]: unknown }

/** A logger whose lines, debug ones left out, the test can look at; a line has the bindings of its child logger too. */
export function recordedLog (
  bindings: object = {}, lines: RecordedLine[] = []
): { readonly log: FastifyBaseLogger, readonly lines: readonly RecordedLine[] } {
  const write = (fields: object, msg: string): void => { lines.push({ ...bindings, ...fields, msg }) }
  const log = Object.assign(Object.create(silentLog) as FastifyBaseLogger, {
    info: write,
    warn: write,
    error: write,
    child: (more: object) => recordedLog({ ...bindings, ...more }, lines).log
  })
  return { log, lines }
}
