import type { WebSocket } from 'ws'
import { CloseCode } from '../protocol/close-codes.ts'
import type { Connection } from '../types.ts'
import { ConnectionIntake, type IntakeOwner } from './intake.ts'
import type { IntakeBudget } from './intake-budget.ts'
import type { InboundLimits } from './message-buffer.ts'
import { boundParts, type ReadGate } from './message-parts.ts'
import { listenForChunks, unfinishedBytes, type ChunkListener } from './receiver.ts'

/** Where the messages of a connection come from, and what their instance has room for. */
export interface InboundSource {
  readonly socket: WebSocket
  readonly intake: IntakeBudget
  readonly limits: InboundLimits
}

interface InputConnection extends Pick<Connection, 'bufferedBytes' | 'log'> {
  closeForFault (code: number, reason?: string): void
  leaving (): void
}

/** Smaller chunks of connections that hold nothing are answers to pings, and not worth counting. */
const smallChunkBytes = 1_024
/** A client is not read while this part of `maxBufferedBytes` waits for it. */
const backlogShare = 0.25

/** What comes in on one socket. Counts nothing as long as the client only listens, as most do. */
export class Input implements ChunkListener, IntakeOwner, ReadGate {
  readonly #connection: InputConnection
  // Kept instead of the object it came in, which holds much that an idle connection no longer needs.
  readonly #socket: WebSocket
  readonly #budget: IntakeBudget
  readonly limits: InboundLimits
  #intake: ConnectionIntake | undefined
  #closed = false

  constructor (connection: InputConnection, { socket, intake, limits }: InboundSource) {
    this.#connection = connection
    this.#socket = socket
    this.#budget = intake
    this.limits = limits
    listenForChunks(socket, this)
    boundParts(socket, this)
  }

  /** Made when the client sends something. */
  get intake (): ConnectionIntake {
    this.#intake ??= new ConnectionIntake(this.#budget, this.#socket, this)
    return this.#intake
  }

  /** This side does not read the socket for now, so that nothing the client says can be heard. */
  get paused (): boolean {
    return this.#intake?.waitsForUs === true
  }

  /** A client that sends without reading the answers is not read either, long before it is closed for being slow. */
  get isBehind (): boolean {
    return this.#connection.bufferedBytes > this.limits.maxBufferedBytes * backlogShare
  }

  /** Bytes came from the network, and the messages that they complete are received. */
  chunkReceived (bytes: number): void {
    if (this.#closed) return
    if (this.#intake === undefined && bytes < smallChunkBytes && unfinishedBytes(this.#socket) < smallChunkBytes) return
    this.intake.chunkReceived(bytes)
  }

  mayRead (goOn: () => void): boolean {
    return this.#closed || this.#intake === undefined || this.#intake.mayRead(goOn)
  }

  /** The socket is gone; ws says so when all that it brought is read. */
  streamClosed (): void {
    this.#connection.leaving()
  }

  /** A message of any kind came. */
  messageReceived (): void {
    if (!this.#closed) this.intake.messageReceived()
  }

  /** The client began a message, does not go on with it, and others need the memory. */
  stalled (): void {
    this.#budget.metrics.lines.write(this.#connection.log, 'message_stalled')
    this.#connection.closeForFault(CloseCode.PolicyViolation, 'message was not finished in time')
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
