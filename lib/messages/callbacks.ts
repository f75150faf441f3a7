import type { ConnectionCallbacks } from '../route-types.ts'

type Callbacks = Omit<ConnectionCallbacks, 'onMessage'> & Partial<Pick<ConnectionCallbacks, 'onMessage'>>

const functions = Object.keys({
  onConnect: true,
  onMessage: true,
  onDisconnect: true,
  onError: true,
  onGap: true,
  mayJoin: true,
  mayStay: true,
  mayRead: true,
  mayStop: true
} satisfies Record<Exclude<keyof ConnectionCallbacks, 'presence'>, true>) as Array<Exclude<keyof ConnectionCallbacks, 'presence'>>

/** A copy of a route's callbacks. They may be methods of an object, which stays their `this`. */
export function copyCallbacks<Given extends Callbacks> (callbacks: Given): Pick<Given, keyof Given & keyof Callbacks> {
  const bound = functions.map(name => [name, callbacks[name]?.bind(callbacks)])
  return { presence: callbacks.presence, ...Object.fromEntries(bound) } as Pick<Given, keyof Given & keyof Callbacks>
}
