import { avatar, element, forEars } from './dom.js'

const maxRows = 500
const timeOf = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' })

/**
 * The messages on the screen, in the order of the room's log. Own messages that are on their way stand below all others, and move to their
 * place when they come back from the room.
 */
export class Log {
  #list
  #ownName
  #pending = []

  constructor (list, ownName) {
    this.#list = list
    this.#ownName = ownName
    list.replaceChildren()
  }

  /** Whether a message of the room is one that was sent from here and had not come back yet. */
  awaits (message) {
    return this.#awaited(message) !== undefined
  }

  /** Shows a message of the room. `old`: it was said earlier, at a time that is not known. */
  said (message, { old = false } = {}) {
    const { name, text, position } = message
    const follow = this.#follows()
    const awaited = this.#awaited(message)
    if (!awaited && this.#has(position)) return
    if (awaited) this.#drop(awaited)
    const row = saidRow(name, text, name === this.#ownName, old ? undefined : new Date())
    if (position) row.dataset.position = position
    if (awaited) row.dataset.state = 'sent'
    this.#add(row, follow)
  }

  /** Moves own messages to their place that were stored and have not come back: they will not come any more. */
  settle () {
    for (const pending of this.#pending.filter(({ position }) => position !== undefined)) {
      this.#pending.splice(this.#pending.indexOf(pending), 1)
      pending.row.classList.remove('pending')
      pending.row.dataset.position = pending.position
      this.#add(pending.row)
    }
  }

  /** Shows an own message before the room has it. `again` sends it once more. Returns functions that change its state. */
  sending (text, again) {
    const row = saidRow(this.#ownName, text, true, new Date())
    row.classList.add('pending')
    const pending = { row, text, position: undefined }
    this.#pending.push(pending)
    this.#list.append(row)
    this.#arrange(row)
    this.#toEnd()
    return {
      /** The message is on its way, or waits for a connection. */
      started: () => { showState(row, 'sending') },
      /** The room's log has the message, so it comes from there too, or has come. */
      sent: position => {
        showState(row, 'sent')
        pending.position = position
        if (this.#has(position)) this.#drop(pending)
      },
      /** Shows why the message was not sent, and lets the user retry or discard it. */
      failed: reason => {
        // The message came from the room meanwhile.
        if (!this.#pending.includes(pending)) return
        const follow = this.#follows()
        showState(row, 'failed', reason, again, () => this.#drop(pending))
        if (follow) this.#toEnd()
      }
    }
  }

  /** Shows a line that is not a message; `kind` is its class. Returns a function that changes its text. */
  line (kind, text) {
    const paragraph = element('p', {}, text)
    this.#add(element('li', { className: kind }, paragraph))
    return changed => { paragraph.textContent = changed }
  }

  /** Finds the own message that came back: the one that was stored there, if that is known by now, or the oldest one with this text. */
  #awaited ({ name, text, position }) {
    if (name !== this.#ownName) return undefined
    return this.#pending.find(one => position && one.position === position) ??
      this.#pending.find(one => one.text === text && one.position === undefined)
  }

  #has (position) {
    return position !== undefined && this.#list.querySelector(`[data-position="${position}"]`) !== null
  }

  #drop (pending) {
    const at = this.#pending.indexOf(pending)
    if (at === -1) return
    this.#pending.splice(at, 1)
    const next = pending.row.nextElementSibling
    pending.row.remove()
    regroup(next)
  }

  #add (row, follow = this.#follows()) {
    this.#list.insertBefore(row, this.#pending[0]?.row ?? null)
    this.#arrange(row)
    while (this.#list.children.length > maxRows &&
      this.#list.firstElementChild !== this.#pending[0]?.row) this.#list.firstElementChild.remove()
    if (follow) this.#toEnd()
  }

  #arrange (row) {
    regroup(row)
    regroup(row.nextElementSibling)
  }

  #follows () {
    const { scrollHeight, scrollTop, clientHeight } = this.#list
    return scrollHeight - scrollTop - clientHeight < 80
  }

  #toEnd () {
    this.#list.scrollTop = this.#list.scrollHeight
  }
}

/** Shows the name only above the first of several messages of the same person. */
function regroup (row) {
  const name = row?.dataset.name
  row?.classList.toggle('more', name !== undefined && row.previousElementSibling?.dataset.name === name)
}

function saidRow (name, text, own, at) {
  const time = at === undefined ? [] : [element('time', { datetime: at.toISOString() }, timeOf.format(at))]
  return element('li', { className: own ? 'said own' : 'said', 'data-name': name },
    avatar(name),
    element('div', { className: 'bubble' },
      element('span', { className: 'name' }, name, forEars(':')),
      element('p', {}, text),
      ...time
    )
  )
}

function showState (row, state, reason, again, discard) {
  row.dataset.state = state
  row.querySelector('.failure')?.remove()
  if (state !== 'failed') return
  const button = (text, act) => {
    const node = element('button', { type: 'button', className: 'link' }, text)
    node.addEventListener('click', act)
    return node
  }
  row.append(element('div', { className: 'failure' }, element('span', {}, reason), button('Retry', again), button('Discard', discard)))
}
