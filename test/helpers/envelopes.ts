import type { Envelope } from '../../lib/backplane/backplane.ts'

/** A message between instances. What `more` leaves out is that of a text to the group `lobby`. */
export function messageEnvelope (payload: string | Buffer, more: Partial<Envelope> = {}): Envelope {
  return {
    origin: 'someorigin',
    sequence: 1,
    kind: 'message',
    target: { kind: 'group', name: 'lobby' },
    shared: false,
    except: [],
    command: '',
    binary: false,
    payload: Buffer.from(payload),
    ...more
  }
}
