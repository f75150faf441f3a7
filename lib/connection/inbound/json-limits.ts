/*
 * JSON can be made so that parsing takes a hundred times as long as parsing text of the same length: 200,000 brackets, or as many names of
 * fields, keep the process busy for more than 100 ms. Therefore everything that a client sent is looked at before it is parsed.
 */

/** Values and names of fields in one text. */
const maxValues = 20_000
const maxDepth = 100
/** The problem of text beyond these limits. */
export const tooComplex = `JSON has at most ${maxValues} values, ${maxDepth} deep`
/** Shorter texts are cheap in any case. */
const shortBytes = 1_024
/** How many values cost as much as a usual message. */
const valuesPerMessage = 20

const [quote, backslash, comma, colon] = [0x22, 0x5c, 0x2c, 0x3a]
const [openBracket, closeBracket, openBrace, closeBrace] = [0x5b, 0x5d, 0x7b, 0x7d]

/**
 * How many messages the text counts for in addition to itself; `undefined` when it has too many values, or nests them too deep. Text that
 * is not JSON is measured, too.
 */
export function extraMessages (text: Uint8Array): number | undefined {
  if (text.length <= shortBytes) return 0
  let [values, depth] = [1, 0]
  for (let at = 0; at < text.length; at++) {
    switch (text[at]) {
      case quote:
        at = endOfString(text, at)
        break
      case openBracket:
      case openBrace:
        depth++
        values++
        break
      case closeBracket:
      case closeBrace:
        depth--
        break
      case comma:
      case colon:
        values++
    }
    if (values > maxValues || depth > maxDepth) return undefined
  }
  return Math.floor(values / valuesPerMessage)
}

/** The problem of a value for which `isPoisoned` is true. */
export const poisoned = 'JSON may have no field __proto__, and no constructor with a prototype'

/**
 * Whether a value that was parsed from JSON has such a field anywhere. Whoever copies the value field by field, as `Object.assign` does,
 * would let the sender choose a prototype; Fastify refuses bodies of requests that have one.
 */
export function isPoisoned (value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false
  if (Object.hasOwn(value, '__proto__')) return true
  if (Object.hasOwn(value, 'constructor')) {
    const { constructor } = value as { readonly constructor: unknown }
    if (typeof constructor === 'object' && constructor !== null && Object.hasOwn(constructor, 'prototype')) return true
  }
  return Object.values(value).some(isPoisoned)
}

/** Where the string that begins at `start` ends. */
function endOfString (text: Uint8Array, start: number): number {
  let at = start + 1
  for (; at < text.length && text[at] !== quote; at++) if (text[at] === backslash) at++
  return at
}
