import { sleep } from '../../../shared/clock.ts'
import type { Logger } from '../../../shared/log.ts'
import type { Clock } from '../../../shared/ports.ts'
import type { Writer } from './cluster.ts'
import { elsewhere } from './peers.ts'

export interface TenureOptions<Task, Answer> {
  clock: Clock
  logger: Logger
  /** For log lines. */
  partition: number
  /** Whether the group of collectors still says so; asked when a commit has failed. */
  isOurs(): Promise<boolean>
  duty: Duty<Task, Answer>
}

/** What is done by the one collector that owns something. */
export interface Duty<Task, Answer> {
  /** Takes over: whoever had it before can commit nothing from then on; reads what that one has committed. */
  takeOver(): Promise<Writer>
  /** How many of those that wait make up the next transaction; at least one of one or more. */
  sizeOfNext(waiting: readonly Task[]): number
  /** Resolves to their answers once they are true for good. */
  commit(writer: Writer, tasks: readonly Task[]): Promise<Answer[]>
  /** Another collector owns it: what was read is of no more use. */
  forget(): void
}

const firstPauseMs = 100
const maxPauseMs = 2_000

interface Waiting<Task, Answer> {
  task: Task
  resolve(answer: Answer): void
  reject(error: unknown): void
}

/**
 * Owns a transactional id while it is this collector's. Tasks that come while one transaction commits make up
 * the next. After a commit that failed, or may have, it takes over anew: what is in doubt is looked up.
 */
export class Tenure<Task, Answer> {
  readonly #options: TenureOptions<Task, Answer>
  readonly #queue: Waiting<Task, Answer>[] = []
  #isAssigned = false
  #assignments = 0
  #writer: Writer | undefined
  #pumping: Promise<void> | undefined
  #wake = () => {}

  constructor(options: TenureOptions<Task, Answer>) {
    this.#options = options
  }

  get isAssigned(): boolean {
    return this.#isAssigned
  }

  /** It can take tasks at once. */
  get isOpen(): boolean {
    return this.#writer !== undefined
  }

  assign(): void {
    this.#assignments += 1
    this.#isAssigned = true
    this.#pump()
  }

  /** Finishes what it has begun, and lets go. */
  async release(): Promise<void> {
    this.#isAssigned = false
    this.#wake()
    this.#pump()
    await this.#pumping
  }

  /** @returns elsewhere when this collector does not own it, or not yet */
  async do(task: Task): Promise<Answer | typeof elsewhere> {
    if (!this.#isAssigned) return elsewhere
    const waiting = Promise.withResolvers<Answer>()
    this.#queue.push({ task, ...waiting })
    this.#pump()
    return waiting.promise.catch((error) => {
      if (error === elsewhere) return elsewhere
      throw error
    })
  }

  #pump(): void {
    this.#pumping ??= this.#work().finally(() => {
      this.#pumping = undefined
      if (this.#queue.length > 0 || (this.#isAssigned && !this.#writer)) this.#pump()
    })
  }

  async #work(): Promise<void> {
    const { duty, logger, partition } = this.#options
    let pauseMs = firstPauseMs
    while (this.#isAssigned && (!this.#writer || this.#queue.length > 0)) {
      let group: Waiting<Task, Answer>[] = []
      try {
        this.#writer ??= await duty.takeOver()
        pauseMs = firstPauseMs
        group = this.#queue.splice(0, duty.sizeOfNext(this.#queue.map(({ task }) => task)))
        const tasks = group.map(({ task }) => task)
        const answers = await duty.commit(this.#writer, tasks)
        for (const [at, { resolve }] of group.entries()) resolve(answers[at]!)
      } catch (error) {
        logger.error({ err: String(error), partition }, 'the log cannot write')
        this.#letGo()
        // The agents send again; what became of these is known by then.
        for (const { reject } of group.length > 0 ? group : this.#queue.splice(0)) reject(error)
        if (this.#isAssigned) await this.#pause(pauseMs)
        await this.#lookWhetherOurs()
        pauseMs = Math.min(maxPauseMs, pauseMs * 2)
      }
    }
    if (this.#isAssigned) return
    this.#letGo()
    duty.forget()
    for (const { reject } of this.#queue.splice(0)) reject(elsewhere)
  }

  /** Otherwise two that both believe that it is theirs would take it from each other for ever. */
  async #lookWhetherOurs(): Promise<void> {
    const before = this.#assignments
    const isOurs = await this.#options.isOurs().catch(() => true)
    if (!isOurs && this.#assignments === before) this.#isAssigned = false
  }

  #letGo(): void {
    this.#writer?.close()
    this.#writer = undefined
  }

  /** Until then, or until there is no more reason to wait. */
  async #pause(ms: number): Promise<void> {
    const stop = new AbortController()
    this.#wake = () => stop.abort()
    await sleep(this.#options.clock, ms, stop.signal).catch(() => {})
  }
}
