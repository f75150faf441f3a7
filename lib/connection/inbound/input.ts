import type { WebSocket } from 'ws'
import { CloseCode } from '../../protocol/close-codes.ts'
import type { Metrics } from '../../metrics.ts'
import type { Connection } from '../../types.ts'
import { ConnectionIntake, type IntakeOwner } from './intake.ts'
import type { IntakeBudget } from './intake-budget.ts'
import type { InboundLimits } from './message-buffer.ts'
import { boundParts, type ChunkReader } from './message-parts.ts'
import type { SocketWriter } from '../outbound/writer.ts'
import { isStreamGone, onceStreamClosed, unfinishedBytes } from './receiver.ts'

/** The limits of an instance for what its clients send. */
export interface InboundHost {
  readonly metrics: Metrics
  readonly intake: IntakeBudget
  readonly limits: InboundLimits
}

interface InputConnection extends Connection {
  readonly outbound: Pick<SocketWriter, 'behind'>
  closeForFault (code: number, reason?: string): void
  leaving (): void
}

/** Smaller chunks of connections that hold nothing are answers to pings, and not worth counting. */
const smallChunkBytes = 1_024
/** How many fragments count as one message: empty fragments take no memory, but time. */
const fragmentsPerMessage = 20

/** Counts and limits what comes in on one socket. Costs nothing as long as the client only listens, as most do. */
export class Input implements IntakeOwner, ChunkReader {
  readonly connection: InputConnection
  readonly #socket: WebSocket
  readonly #host: InboundHost
  #intake: ConnectionIntake | undefined
  #closed = false

  constructor (connection: InputConnection, socket: WebSocket, host: InboundHost) {
    this.connection = connection
    this.#socket = socket
    this.#host = host
    boundParts(socket, this)
  }

  get limits (): InboundLimits {
    return this.#host.limits
  }

  /** Made when the client sends something. */
  get intake (): ConnectionIntake {
    if (this.#intake === undefined) {
      this.#intake = new ConnectionIntake(this.#host.intake, this.#socket, this)
      // ws reports the end of the socket only when all that came is read, which may take long from here on.
      onceStreamClosed(this.#socket, () => this.connection.leaving())
    }
    return this.#intake
  }

  /** Whether this side does not read the socket now. */
  get paused (): boolean {
    return this.#intake?.waitsForUs === true
  }

  /** A client that sends without reading the answers is not read either, long before it is closed for being slow. */
  get isBehind (): boolean {
    return this.connection.outbound.behind
  }

  get isOver (): boolean {
    return this.#closed && isStreamGone(this.#socket)
  }

  /** Bytes came from the network, and the messages that they complete are received. */
  chunkReceived (bytes: number): void {
    if (this.#closed) return
    if (this.#intake === undefined && bytes < smallChunkBytes && unfinishedBytes(this.#socket) < smallChunkBytes) return
    this.intake.chunkReceived(bytes)
  }

  fragmentReceived (): void {
    this.chargeMessages(1 / fragmentsPerMessage)
  }

  mayRead (goOn: () => void): boolean {
    return this.#closed || this.#intake === undefined || this.#intake.mayRead(goOn)
  }

  /** A message of any kind came. */
  messageReceived (): void {
    if (!this.#closed) this.intake.messageReceived()
  }

  /** Counts a message that costs as much as this many others. */
  chargeMessages (count: number): void {
    if (!this.#closed) this.intake.chargeMessages(count)
  }

  /** The client began a message, does not go on with it, and others need the memory. */
  stalled (): void {
    this.#host.metrics.lines.write(this.connection.log, 'message_stalled')
    this.connection.closeForFault(CloseCode.PolicyViolation, 'message was not finished in time')
  }

  /** The bytes of a message are no longer held. */
  release (bytes: number): void {
    this.#intake?.release(bytes)
  }

  /** Drops everything that still comes, so that the client's answer to the close gets through. */
  close (): void {
    this.#closed = true
    this.#intake?.close()
  }
}
