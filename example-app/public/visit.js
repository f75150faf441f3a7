/* global clearTimeout, setTimeout */
import { connect } from './client.js'
import { nameOf } from './people.js'
import { failures, gapReasons, parse } from './texts.js'

/** Longer than it takes until a page has got what it missed. */
const catchUpMs = 3_000
/** A connection that is back is in the room before it is on the list. */
const listedMs = 500
/** After trouble the first list may be incomplete. */
const newsMs = 3_000
/** After a gap, a message that was sent before it comes within this time, or not at all. */
const settleMs = 5_000

/**
 * One visit to a room: turns what the client reports into what is on the screen. Presence says who comes and goes, so the room's own lines
 * about that (`… joined the room`) are not shown. They do tell who lost the connection, and when this page itself has caught up.
 */
export class Visit {
  #name
  #room
  #log
  #people
  #client
  #onNews
  #welcome
  /** Set while messages come that were said before: history after the first join, later what this page missed. */
  #catchUp
  /** Whether this page has joined the room before. */
  #entered = false
  /** Messages sent but not acknowledged when the connection broke. Those that reached the room's log come back with what was missed. */
  #unsure = []
  #timers = {}

  constructor ({ url, token, session, name, room }, log, people, { onState, onNews }) {
    this.#name = name
    this.#room = room
    this.#log = log
    this.#people = people
    this.#onNews = onNews
    // The positions are not kept with the session: a page that was loaded again has nothing on the screen, and wants the room's history.
    const client = this.#client = connect(url, { token, session })
    client.on('state', change => {
      if (change.state !== 'open' && change.previous === 'open') this.#caughtUp()
      onState(change)
    })
    client.on('joined', joined => this.#joined(joined))
    client.on('gap', ({ reason }) => {
      if (this.#catchUp) this.#catchUp.hasGap = true
      this.#after('settle', settleMs, () => log.settle())
      log.line('gap', `Some messages are lost: ${gapReasons[reason] ?? reason}.`)
    })
    client.on('message', message => this.#received(message))
    client.on('members', () => {
      this.#list()
      this.#after('news', newsMs, () => this.#tell(people.news()))
    })
    client.on('presence', ({ member }) => {
      this.#list()
      this.#tell(people.news(nameOf(member)))
    })
    client.on('close', ({ error }) => {
      if (error) log.line('note', 'The server does not let this page in.')
    })
    onState({ state: client.state })
  }

  get session () {
    return this.#client.session
  }

  send (text) {
    const entry = this.#log.sending(text, () => start())
    const start = () => {
      entry.started()
      this.#client.send(text).then(({ position }) => entry.sent(position), ({ code }) => {
        if (code === 'UNKNOWN_OUTCOME') this.#unsure.push(entry)
        else entry.failed(failures[code] ?? 'Not sent')
      })
    }
    start()
  }

  leave () {
    for (const timer of Object.values(this.#timers)) clearTimeout(timer)
    this.#client.close()
  }

  #joined ({ group, recovered }) {
    if (group !== this.#room) return
    this.#caughtUp()
    this.#catchUp = { isReturn: this.#entered, recovered, count: 0, hasGap: false, unsure: this.#unsure.splice(0) }
    this.#after('catchUp', catchUpMs, () => this.#caughtUp())
    this.#entered = true
  }

  #received ({ data, position }) {
    if (typeof data !== 'string') return
    const message = parse(data)
    switch (message.kind) {
      case 'welcome':
        // The welcome is shown once, below what was said before.
        if (!this.#entered) this.#welcome = message.text
        return
      case 'joined':
      case 'left':
        this.#people.away(message.name, message.kind === 'left')
        // Somebody may be back on another instance, which presence does not report.
        if (message.kind === 'joined') this.#after('list', listedMs, () => this.#list())
        if (message.name === this.#name && message.kind === 'joined') this.#caughtUp()
        return
      case 'said': {
        const said = { ...message, position }
        const isMissed = this.#catchUp !== undefined && !this.#log.awaits(said)
        if (isMissed) this.#count()
        this.#people.away(message.name, false)
        this.#log.said(said, { old: isMissed })
        break
      }
      default:
        this.#count()
        this.#log.line('announcement', message.text)
    }
    if (!this.#catchUp || this.#catchUp.isReturn) this.#onNews()
  }

  /** Counts a message that was said before, in a line above all of these. */
  #count () {
    const catchUp = this.#catchUp
    if (!catchUp || catchUp.hasGap) return
    catchUp.count++
    const text = catchUp.isReturn
      ? `Back. ${catchUp.count === 1 ? '1 missed message' : `${catchUp.count} missed messages`}:`
      : 'Earlier in this room'
    if (catchUp.change) catchUp.change(text)
    else catchUp.change = this.#log.line('note', text)
  }

  #caughtUp () {
    const catchUp = this.#catchUp
    if (!catchUp) return
    this.#catchUp = undefined
    clearTimeout(this.#timers.catchUp)
    if (this.#welcome) this.#log.line('note', this.#welcome)
    this.#welcome = undefined
    if (catchUp.recovered && catchUp.count === 0) this.#log.line('note', 'Back. Nothing missed.')
    for (const entry of catchUp.unsure) entry.failed(catchUp.hasGap ? failures.UNKNOWN_OUTCOME : 'Not sent: the connection broke')
  }

  #list () {
    this.#people.update(this.#client.members(this.#room))
  }

  #tell ({ came, went }) {
    for (const name of came) this.#log.line('presence', `${name} joined the room`)
    for (const name of went) this.#log.line('presence', `${name} left the room`)
  }

  #after (what, ms, act) {
    clearTimeout(this.#timers[what])
    this.#timers[what] = setTimeout(act, ms)
  }
}
