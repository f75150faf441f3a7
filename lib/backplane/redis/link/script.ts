import { createHash } from 'node:crypto'

/** A Lua script with its hash; called by EVALSHA, and by EVAL when Redis forgot it. */
export class Script {
  readonly lua: string
  readonly sha: string

  constructor (lua: string) {
    this.lua = lua
    this.sha = createHash('sha1').update(lua).digest('hex')
  }
}
