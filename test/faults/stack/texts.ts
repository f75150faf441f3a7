/** What every stream of this test says: pieces that differ, so that one that is missing, doubled or out of place shows. */
export const pieces: readonly string[] = Array.from({ length: 100 }, (_, n) => `${n} `)
export const whole = pieces.join('')
