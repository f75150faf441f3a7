import type { FastifyInstance } from 'fastify'
import type { Instance } from '../instance.ts'
import type { RawDefinition } from '../messages/message-set.ts'
import { MessageSet } from '../messages/message-set.ts'
import { Questions } from '../messages/questions.ts'
import { invalid, type Rule } from '../options/rules.ts'

/** The option `messages` of routes. */
export const someMessages: Rule = { allowed: 'what app.wsMessages(…) returns', accepts: value => value instanceof MessageSet }

/** Makes `app.wsMessages`. Call `compile` when all plugins are loaded. */
export function makeWsMessages (
  { registry }: Pick<Instance, 'registry'>
): { readonly wsMessages: FastifyInstance['wsMessages'], compile (): void } {
  const sets: MessageSet[] = []
  // Made with the first set, because it adds a handler to the registry.
  let questions: Questions | undefined
  let compiled = false

  function wsMessages (this: FastifyInstance | undefined, definition: RawDefinition): MessageSet {
    // `this` is the scope whose compilers and shared schemas count.
    if (this === undefined) throw invalid('wsMessages was called without its instance: call it as app.wsMessages(…)')
    if (compiled) throw invalid('wsMessages must be called before app.ready() is done')
    const set = new MessageSet(definition, this, registry, questions ??= new Questions(registry))
    sets.push(set)
    return set
  }
  return {
    wsMessages: wsMessages as unknown as FastifyInstance['wsMessages'],
    compile () {
      compiled = true
      for (const set of sets) set.compile()
    }
  }
}
