import { useEffect, useRef, type ReactElement, type ReactNode } from 'react'
import { Avatar } from './avatar.tsx'
import { nameOf } from './names.ts'

/** A list that scrolls to its end when something new comes, unless the reader has scrolled up. */
export function Timeline ({ label, latest, children }: {
  readonly label: string
  /** Changes when there is something new at the end. */
  readonly latest: unknown
  readonly children: ReactNode
}): ReactElement {
  const list = useRef<HTMLOListElement>(null)
  const atEnd = useRef(true)
  useEffect(() => { if (atEnd.current) list.current?.scrollTo({ top: list.current.scrollHeight }) }, [latest])
  const onScroll = (): void => {
    const { scrollHeight = 0, scrollTop = 0, clientHeight = 0 } = list.current ?? {}
    atEnd.current = scrollHeight - scrollTop - clientHeight < 40
  }
  return <ol className='timeline' role='log' aria-label={label} ref={list} onScroll={onScroll} tabIndex={0}>{children}</ol>
}

/** One message. */
export function Bubble ({ from, at, follows = false, children }: {
  readonly from: string
  readonly at: number
  /** Whether the message before is of the same person. */
  readonly follows?: boolean
  readonly children: ReactNode
}): ReactElement {
  return (
    <li className={follows ? 'said follows' : 'said'}>
      {!follows && <Avatar userId={from} />}
      <div>
        {!follows && <p className='by'><strong>{nameOf(from)}</strong> <time>{timeOf(at)}</time></p>}
        {children}
      </div>
    </li>
  )
}

export function timeOf (at: number): string {
  return new Date(at).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' })
}
