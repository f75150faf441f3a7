import type { Test } from 'tap'
import { connect, type TestClient } from '../../helpers/client.ts'

export type Frame = Readonly<Record<string, unknown>> & { readonly type: string }

/** A client that speaks the framed protocol by hand, so that tests see each frame. */
export interface FramedClient {
  readonly raw: TestClient
  /** What the server said of itself. */
  readonly welcome: Frame
  /** All frames so far. */
  readonly frames: readonly Frame[]
  send (frame: object): void
  /** The next frame, whatever it is. */
  next (): Promise<Frame>
  /** Hands out frames until one has this type, and these fields. */
  nextOf (type: string, fields?: object): Promise<Frame>
}

export interface FramedOptions {
  readonly token?: string
  readonly hello?: object
  /** `next` also gives the `joined` of the log of the user, which comes after each welcome. @default false */
  readonly userLog?: boolean
}

/** Connects without a hello. */
export function connectFramed (t: Test, url: string, token?: string): TestClient {
  return connect(t, url, { protocols: ['wsg.v1', ...(token === undefined ? [] : ['bearer', token])] })
}

export async function openFramed (t: Test, url: string, { token, hello = {}, userLog = false }: FramedOptions = {}): Promise<FramedClient> {
  const raw = connectFramed(t, url, token)
  await raw.opened
  const next = async (): Promise<Frame> => {
    const frame = JSON.parse(String(await raw.next())) as Frame
    return frame.type === 'joined' && frame.group === 'wsg:user' && !userLog ? await next() : frame
  }
  const send = (frame: object): void => raw.send(JSON.stringify(frame))
  send({ type: 'hello', ...hello })
  const welcome = await next()
  return {
    raw,
    welcome,
    get frames () { return raw.messages.map(message => JSON.parse(String(message)) as Frame) },
    send,
    next,
    async nextOf (type, fields = {}) {
      for (;;) {
        const frame = await next()
        if (frame.type === type && Object.entries(fields).every(([name, value]) => JSON.stringify(frame[name]) === JSON.stringify(value))) {
          return frame
        }
      }
    }
  }
}
