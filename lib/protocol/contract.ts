// What the two sides of a route with messages agree on, as types alone: nothing here exists at run time.

/** Messages and events of a route, as its clients see them. */
export interface Contract {
  readonly messages: Readonly<Record<string, { readonly data: unknown, readonly reply: unknown }>>
  readonly events: Readonly<Record<string, unknown>>
  /** What the server asks. */
  readonly questions: Readonly<Record<string, { readonly data: unknown, readonly reply: unknown }>>
}

/** What `typeof chat` tells a client of the contract of `const chat = app.wsMessages(…)`. */
export interface HasContract<Agreed extends Contract = Contract> {
  /** Carries the type; never set. */
  readonly '~contract'?: Agreed | undefined
}
