import type { CSSProperties, ReactElement } from 'react'
import { nameOf } from './names.ts'

/** The initials of somebody in a colour of their own, and a dot that says whether they are online. */
export function Avatar ({ userId, online }: { readonly userId: string, readonly online?: boolean }): ReactElement {
  const hue = [...userId].reduce((sum, letter) => sum * 31 + letter.charCodeAt(0), 7) * 67 % 360
  return (
    <span className='avatar' style={{ '--hue': hue } as CSSProperties} aria-hidden>
      {nameOf(userId).split(' ').map(([first]) => first)}
      {online !== undefined && <i className={online ? 'online' : 'away'} />}
    </span>
  )
}
