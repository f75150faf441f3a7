import type {} from 'fastify-websocket-groups/client'
import { StrictMode, useState, type ReactElement } from 'react'
import { createRoot } from 'react-dom/client'
import type { Shown } from '../people.ts'
import { Avatar } from './avatar.tsx'
import { people } from './names.ts'
import { Workspace } from './workspace.tsx'

declare module 'fastify-websocket-groups/client' {
  interface Register { memberInfo: Shown }
}

const kept = 'workspace-user'

function SignIn ({ onChoose }: { readonly onChoose: (userId: string) => void }): ReactElement {
  return (
    <main className='sign-in'>
      <h1>Workspace</h1>
      <p>Who are you? Open a second window to be somebody else, too.</p>
      <ul>
        {people.map(({ userId, name, about }) => (
          <li key={userId}>
            <button onClick={() => onChoose(userId)}>
              <Avatar userId={userId} />
              <span><strong>{name}</strong> <small>{about}</small></span>
            </button>
          </li>
        ))}
      </ul>
    </main>
  )
}

function App (): ReactElement {
  const [me, setMe] = useState(() => new URLSearchParams(location.search).get('user') ?? sessionStorage.getItem(kept))
  if (me === null || !people.some(({ userId }) => userId === me)) {
    return <SignIn onChoose={userId => { sessionStorage.setItem(kept, userId); setMe(userId) }} />
  }
  return <Workspace me={me} onLeave={() => { sessionStorage.removeItem(kept); location.assign('/') }} />
}

createRoot(document.getElementById('root') as HTMLElement).render(<StrictMode><App /></StrictMode>)
