/** Who is behind a connection. */
export interface User {
  readonly userId: string
  readonly name: string
}

// From here on `connection.identity` and `request.identity` are a User everywhere.
declare module 'fastify-websocket-groups' {
  interface Register { identity: User }
}

// For the demonstration only. A real service verifies a signed token here, with @fastify/jwt for example.
const users = new Map<string, User>([
  ['valid-token', { userId: 'john', name: 'John Doe' }],
  ['jane-token', { userId: 'jane', name: 'Jane Roe' }],
  ['alex-token', { userId: 'alex', name: 'Alex Kim' }],
  ['maria-token', { userId: 'maria', name: 'Maria Silva' }]
])

/** The token of other services, which act for no user. */
export const serviceToken = 'service-token'

export const demoTokens: ReadonlyMap<string, User> = users

/** Returns `undefined` for an unknown token: the plugin then answers 401, before the upgrade. */
export function authenticate (token: string): User | undefined {
  return users.get(token)
}
