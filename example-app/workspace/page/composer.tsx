import { useState, type FormEvent, type ReactElement } from 'react'

const reasons: Readonly<Record<string, string>> = {
  WSG_RATE_LIMITED: 'That was too fast. Wait a moment and send it again.',
  WSG_MESSAGE_INVALID: 'A message has 1 to 2,000 characters.',
  WSG_FORBIDDEN: 'You may not write here.'
}

/** Where messages are written. What cannot be sent stays, with the reason. */
export function Composer ({ label, actions, onTyping }: {
  readonly label: string
  /** What each button does, by its text. The enter key stands for the first one. */
  readonly actions: Readonly<Record<string, (text: string) => Promise<unknown>>>
  readonly onTyping?: () => void
}): ReactElement {
  const [text, setText] = useState('')
  const [problem, setProblem] = useState<string>()

  async function submit (event: FormEvent<HTMLFormElement>): Promise<void> {
    event.preventDefault()
    const { submitter } = event.nativeEvent as SubmitEvent
    setText('')
    try {
      await actions[submitter?.textContent ?? '']?.(text)
      setProblem(undefined)
    } catch (error) {
      setText(text)
      const { code = '', message } = error as { readonly code?: string, readonly message: string }
      setProblem(reasons[code] ?? message)
    }
  }

  return (
    <form className='composer' onSubmit={event => { void submit(event) }}>
      {problem !== undefined && <p role='alert'>{problem}</p>}
      <div>
        <input
          aria-label={label} placeholder={label} value={text} autoComplete='off' required
          onChange={({ target }) => { setText(target.value); onTyping?.() }}
        />
        {Object.keys(actions).map((name, at) => <button key={name} className={at === 0 ? 'primary' : undefined}>{name}</button>)}
      </div>
    </form>
  )
}
