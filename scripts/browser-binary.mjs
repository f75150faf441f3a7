import { onPath, works } from './on-path.mjs'

/** Path of a Chromium or Chrome for the browser tests, or undefined: those tests then say so and skip. */
export function browserBinary () {
  const found = ['chromium', 'chromium-browser', 'google-chrome-stable', 'google-chrome'].map(onPath)
  return [process.env.CHROMIUM_BIN, ...found].find(program => program && works(program))
}
