/** The second part of the page's script: the views of one group, one user and names of groups, and the configuration, fetched on demand. */
export const details = `let allowed = []
/** The outcome of the last action, in words. */
let note = ''
let shownAt = 0
let tookMs = 0
/** How many answers for the view are under way. */
let asking = 0
/** The cursor of the list's page that is shown; undefined for the first page. */
let cursor

/** Rejects with the message of the server's error. */
async function ask (path, body) {
  const post = body && { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }
  const response = await fetch(path, { ...post, cache: 'no-store' })
  const answer = await response.json().catch(() => undefined)
  if (!response.ok) throw new Error((answer && answer.message) || 'HTTP status ' + response.status)
  return answer
}
const query = values => '?' + new URLSearchParams(Object.entries(values).filter(([, value]) => value !== undefined))

/** The view that the URL asks for. */
function chosen () {
  const [, kind, name] = /^#(groups|group|user)=(.*)$/.exec(location.hash) ?? []
  try {
    return kind && (name || kind === 'groups') ? { kind, name: decodeURIComponent(name) } : undefined
  } catch {
    return undefined
  }
}

const titles = { disconnect: 'Disconnect', kick: 'Kick', block: 'Block', unblock: 'Unblock' }

/** Asks for confirmation, then acts. */
function confirmed (order) {
  byId('dialog-title').textContent = titles[order.action] + ': ' + order.userId + (order.group ? ' out of ' + order.group : '')
  byId('dialog-go').textContent = titles[order.action]
  byId('dialog-reason-row').hidden = order.action !== 'disconnect' && order.action !== 'kick'
  byId('dialog-minutes-row').hidden = order.action !== 'block'
  byId('dialog-reason').value = ''
  byId('dialog-go').onclick = async () => {
    byId('dialog').close()
    // Otherwise the list with the focus would not be replaced.
    document.activeElement?.blur()
    const reason = byId('dialog-reason').value
    const extra = order.action === 'block'
      ? { forMs: Math.round(Number(byId('dialog-minutes').value) * 60000) }
      : reason && order.action !== 'unblock' ? { reason } : {}
    try {
      const { done } = await ask('actions', { ...order, ...extra })
      note = titles[order.action] + ' done, connections: ' + number(done)
    } catch (error) {
      note = titles[order.action] + ' failed: ' + error.message
    }
    void detail()
  }
  byId('dialog').showModal()
}

const offer = (action, userId, group) => allowed.includes(action)
  ? [button(titles[action], () => confirmed(group === undefined ? { action, userId } : { action, userId, group }), 'danger')]
  : []

/** Buttons to the first and the next page of a list, as far as there are such pages. */
function pager (next) {
  const to = at => () => {
    cursor = at
    document.activeElement?.blur()
    void detail()
  }
  const made = element('p', undefined, 'buttons')
  if (cursor !== undefined) made.append(button('First page', to(undefined)))
  if (next !== undefined) made.append(button('Next page', to(next)))
  return made.childElementCount > 0 ? [made] : []
}

/** How many members a group has, and of when that is: during an outage it is what was known last. */
const membersOf = ({ members, ageMs }) => ageMs === null
  ? 'members in this instance: ' + number(members) + ' · those in others are not known now'
  : 'members in all instances: ' + number(members) + (ageMs > 0 ? ' · as it was ' + lasting(ageMs) + ' ago' : '')

async function groupView (name) {
  // During an outage the log cannot be read, and who was there last is known.
  const [group, history] = await Promise.all([
    ask('group' + query({ name, cursor })),
    allowed.includes('history') ? ask('history' + query({ name })).catch(notShown) : undefined
  ])
  const members = group.presence.map(({ userId, session, connections, joinedAt, info }) => row(
    userId === undefined ? 'anonymous' + (session ? ' ' + session : '') : link('user', userId), number(connections),
    since(joinedAt, group.now), info === undefined ? '' : JSON.stringify(info),
    userId === undefined ? '' : offer('kick', userId, name)[0] ?? ''
  ))
  const body = [
    element('h2', 'Who is there'),
    members.length > 0 ? table(['User', 'Connections', 'Since', 'Info', ''], members, 'people') : element('p', 'Nobody'),
    ...pager(group.cursor)
  ]
  if (typeof history === 'string') {
    body.push(element('h2', 'Latest messages'), element('p', history))
  } else if (history) {
    const messages = history.map(({ at, from, text }) => row(time(at), from ? from.userId ?? from.connectionId ?? '' : '', text))
    const list = history.length > 0 ? table(['Time', 'From', 'Message'], messages, 'texts messages') : element('p', 'None in its log')
    body.push(element('h2', 'Latest messages'), list)
  }
  return { title: 'Group ' + name, summary: membersOf(group), actions: [], body }
}

const userActions = name => ['disconnect', 'block', 'unblock'].flatMap(action => offer(action, name))

async function userView (name) {
  const { groups, total, cursor: next } = await ask('user' + query({ name, cursor }))
  const rows = groups.map(group => row(link('group', group), offer('kick', name, group)[0] ?? ''))
  return {
    title: 'User ' + name,
    summary: 'groups: ' + number(total),
    actions: userActions(name),
    body: [...groups.length > 0 ? [table(['Group', ''], rows)] : [], ...pager(next)]
  }
}

const notShown = error => 'cannot be shown: ' + error.message
const silent = count => number(count) + (count === 1 ? ' instance' : ' instances') + ' did not answer'

async function groupsView (prefix) {
  const { names, cursor: next, missing } = await ask('groups' + query({ prefix, cursor }))
  const list = element('ul', undefined, 'names')
  for (const name of names) {
    const item = element('li')
    item.append(link('group', name))
    list.append(item)
  }
  return {
    title: prefix ? 'Groups that start with ' + prefix : 'All groups',
    summary: (names.length === 0 ? 'none' : 'in alphabetical order') +
      (missing > 0 ? ' · ' + silent(missing) : ''),
    actions: [],
    body: names.length > 0 ? [list, ...pager(next)] : pager(next)
  }
}

/** Whether to ask for the view again: a long list costs the server work, so it is asked for a tenth of the time at most. */
const isOld = () => asking === 0 && !document.hidden && Date.now() - shownAt > Math.max(4000, 9 * tookMs)

const shown = { group: groupView, groups: groupsView, user: userView }
const kinds = { group: 'Group ', groups: 'Groups ', user: 'User ' }

async function detail () {
  const choice = chosen()
  const at = cursor
  byId('detail').hidden = choice === undefined
  byId('overview').hidden = choice !== undefined
  if (choice === undefined) return
  let view
  const askedAt = Date.now()
  asking++
  try {
    view = await shown[choice.kind](choice.name)
  } catch (error) {
    // In an outage actions still reach the connections of this instance.
    const actions = choice.kind === 'user' ? userActions(choice.name) : []
    view = { title: kinds[choice.kind] + choice.name, summary: notShown(error), actions, body: [] }
  }
  asking--
  shownAt = Date.now()
  tookMs = shownAt - askedAt
  // Another view may have been chosen meanwhile.
  if (JSON.stringify(chosen()) !== JSON.stringify(choice) || cursor !== at) return
  byId('h-detail').textContent = view.title
  byId('detail-summary').textContent = note ? view.summary + ' · ' + note : view.summary
  if (byId('detail').contains(document.activeElement)) return
  byId('detail-actions').replaceChildren(...view.actions)
  byId('detail-body').replaceChildren(...view.body)
}

async function configuration () {
  const named = ({ instances, names }) => number(instances) + (instances === 1 ? ' instance: ' : ' instances: ') + names.join(', ') +
    (instances > names.length ? ' …' : '')
  try {
    const { most, others, more, missing } = await ask('configuration')
    const notes = [
      most ? (others.length === 0 ? 'the same on ' : 'what most have in common · ') + named(most) : '',
      missing > 0 ? silent(missing) + ': hung, cut off from Redis, without a dashboard, or with another key' : ''
    ]
    byId('configuration-note').textContent = notes.filter(Boolean).join(' · ')
    const differences = others.flatMap(one => [
      element('h3', named(one)),
      table(['Differs in', 'Value'], Object.entries(one.differs).map(([path, value]) => row(path, JSON.stringify(value))), 'texts')
    ])
    if (more > 0) differences.push(element('p', 'and ' + number(more) + ' more kinds'))
    byId('configuration-differences').replaceChildren(...differences)
    byId('configuration').textContent = most ? JSON.stringify(most.configuration, null, 2) : ''
    byId('configuration').hidden = !most
  } catch (error) {
    byId('configuration-note').textContent = 'cannot be shown: ' + error.message
  }
}
`
