import type { WsAuthOptions } from '../route-types.ts'

type Scheme = Readonly<Record<string, string>>

const schemes = new WeakMap<object, Readonly<Record<string, Scheme>>>()

/** Remembers where a hook of `app.wsAuth` looks for tokens, for the AsyncAPI document. Returns the hook. */
export function secured<Hook extends object> (
  hook: Hook, { required = true, cookie, query }: Pick<WsAuthOptions, 'required' | 'cookie' | 'query'> = {}
): Hook {
  if (!required) return hook
  schemes.set(hook, {
    bearer: { type: 'http', scheme: 'bearer', description: 'In the header Authorization, or as the subprotocols `bearer, <token>`.' },
    ...(typeof cookie === 'string' ? { [`cookie_${cookie}`]: { type: 'httpApiKey', in: 'cookie', name: cookie } } : {}),
    ...(typeof query === 'string' ? { [`query_${query}`]: { type: 'httpApiKey', in: 'query', name: query } } : {})
  })
  return hook
}

/** Remembers the same for a hook that wraps `inner`. Returns the hook. */
export function securedAs<Hook extends object> (hook: Hook, inner: object): Hook {
  const known = schemes.get(inner)
  if (known !== undefined) schemes.set(hook, known)
  return hook
}

/** The AsyncAPI security schemes of a route with these hooks. */
export function securityOf (hooks: readonly unknown[]): Readonly<Record<string, Scheme>> {
  return Object.assign({}, ...hooks.map(hook => typeof hook === 'function' ? schemes.get(hook) : undefined)) as Record<string, Scheme>
}
