import { createElement as h, StrictMode, useState, version, type ReactElement } from 'react'
import { createRoot } from 'react-dom/client'
import {
  useConnection, useEvent, useGroup, usePresence, useRequest, useStream, useStreams, type Connection
} from '../../lib/client/react.ts'

/** What the page's server says and answers: see react.test.ts. */
interface Contract {
  messages: { say: { data: { text: string }, reply: { length: number } } }
  events: { said: { text: string } }
  questions: Record<never, never>
}

// The types of browsers are none of this project's.
const { location, document } = globalThis as unknown as {
  readonly location: { readonly search: string, readonly hash: string }
  readonly document: { getElementById (id: string): Parameters<typeof createRoot>[0] }
}
const url = new URLSearchParams(location.search).get('url') ?? ''
const show = (name: string, value: unknown): ReactElement => h('output', { id: name }, JSON.stringify(value) ?? '')

function Room ({ connection }: { readonly connection: Connection<Contract> }): ReactElement {
  const [heard, setHeard] = useState<unknown[]>([])
  const { joined, error } = useGroup(connection, 'den', { onMessage: ({ data }) => setHeard(before => [...before, data]) })
  const [said, setSaid] = useState<string[]>([])
  // With another handler in each render.
  useEvent(connection, 'said', ({ text }, { group }) => setSaid(before => [...before, `${group}: ${text}`]))
  const forbidden = useGroup(connection, 'secret')
  const members = usePresence(connection, 'den')
  const stream = useStream(connection, 'den', 'r1')
  const streams = useStreams(connection, 'den')
  const { request, pending, reply, error: refusal } = useRequest(connection, 'say')
  return h('main', null,
    show('joined', joined), show('error', error?.code), show('forbidden', forbidden.error?.code), show('heard', heard), show('said', said),
    show('members', members.map(({ userId }) => userId)),
    show('stream', stream === undefined ? undefined : { text: stream.text, state: stream.state }), show('streams', streams.length),
    show('request', { pending, reply, error: refusal?.code }),
    h('button', { id: 'say', onClick: () => { void request({ text: 'hello' }) } }),
    h('button', { id: 'fail', onClick: () => { request({ text: 'bad' }).catch(() => {}) } })
  )
}

function App ({ name }: { readonly name: string }): ReactElement {
  const connection = useConnection<Contract>(url, { token: 'ann' })
  return h('section', null, show('state', connection.state), show('name', name), show('react', version), h(Room, { connection }))
}

const root = createRoot(document.getElementById('root'))
const render = (name: string): void => root.render(h(StrictMode, null, h(App, { name, key: name })))
render(location.hash)
Object.assign(globalThis, { render, unmount: () => root.unmount() })
