import type { ReactElement } from 'react'
import { Composer } from './composer.tsx'
import { nameOf } from './names.ts'
import { Bubble, Timeline } from './timeline.tsx'
import type { WorkspaceConnection } from './use-log.ts'

export interface Whisper { readonly from: string, readonly other: string, readonly text: string, readonly at: number }

/** Direct messages with one person. */
export function Conversation ({ partner, connection, whispers }: {
  readonly partner: string, readonly connection: WorkspaceConnection, readonly whispers: readonly Whisper[]
}): ReactElement {
  return (
    <main>
      <header><h1>{nameOf(partner)}</h1><p>Direct messages, on all devices of both of you</p></header>
      <Timeline label='Direct messages' latest={whispers.length}>
        {whispers.map(({ from, text, at }, index) => (
          <Bubble key={at} from={from} at={at} follows={whispers[index - 1]?.from === from}>{text}</Bubble>
        ))}
      </Timeline>
      <Composer
        label={`Message ${nameOf(partner)}`}
        actions={{ Send: async text => await connection.chat?.request('whisper', { to: partner, text }) }}
      />
    </main>
  )
}
