/**
 * Every close code that this package sends by itself; docs/protocol.md says what a client does after each. The server and
 * the client of browsers share this file, so it imports nothing.
 */
export const CloseCode = {
  Normal: 1000,
  GoingAway: 1001,
  PolicyViolation: 1008,
  InternalError: 1011,
  ServiceRestart: 1012,
  TryAgainLater: 1013,
  SlowConsumer: 4008,
  BadFrame: 4400,
  TokenExpired: 4401,
  OtherUser: 4403,
  NoHello: 4408
} as const
export type CloseCode = (typeof CloseCode)[keyof typeof CloseCode]
