import { Histogram } from './histogram.ts'
import { LoopLag } from './loop-lag.ts'

/** How long things take, in seconds. A message is recorded once, however many connections get it. */
export class Timings {
  /** From the call that published a message to the hand-over to the sockets here. */
  readonly delivery = new Histogram()
  readonly join = new Histogram()
  readonly onMessage = new Histogram()
  /** Of messages that had to wait for the callbacks before them. */
  readonly queueWait = new Histogram()
  /** How late the event loop is, while the instance runs. */
  readonly loopLag = new LoopLag()
}
