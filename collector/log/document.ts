import { sleep } from '../../shared/clock.ts'
import type { Clock, Random } from '../../shared/ports.ts'
import { LogFailure } from './engine.ts'
import { moved, type Notes } from './notes.ts'

export interface DocumentOptions<Value> {
  notes: Notes
  name: string
  clock: Clock
  random: Random
  /** Makes sense of a note's text. What it throws, `change` throws. */
  parse(text: string): Value
}

/** What becomes of a document; as before where it is the same value, removed where it is undefined. */
export interface Change<Value, Answer> {
  value: Value | undefined
  answer: Answer
}

/**
 * Changes a document by what it is, which may be asked for more than once. What it throws is the answer, and
 * leaves the document as it is.
 */
type Edit<Value, Answer> = (value: Value | undefined) => Change<Value, Answer>

interface Waiting<Value> {
  edit: Edit<Value, unknown>
  /** By what it is now, not by what was seen before. */
  isFresh: boolean
  resolve(answer: unknown): void
  reject(error: unknown): void
}

/** Other collectors can win this often before a change is given up. */
const maxTries = 12
const firstPauseMs = 2
const maxPauseMs = 500

/**
 * A note in JSON that is changed by what it is, by any number of collectors. Changes that come while one is
 * being written share the next write. They are tried on what was seen last; where another collector was
 * faster the write is refused, and they are tried on what is there then. So no change is lost, and what a
 * change was answered with is true of the document as it was written.
 */
export class Document<Value> {
  readonly #options: DocumentOptions<Value>
  #seen: { value: Value | undefined; text: string | undefined; revision: number } | undefined
  readonly #queue: Waiting<Value>[] = []
  #working: Promise<void> | undefined

  constructor(options: DocumentOptions<Value>) {
    this.#options = options
  }

  get isBusy(): boolean {
    return this.#working !== undefined
  }

  /** As it is now. @throws LogFailure LOG_DISK, and what `parse` throws */
  read(): Promise<Value | undefined> {
    return this.#ask((value) => ({ value, answer: value }), true)
  }

  /**
   * Resolves once the change is durable.
   *
   * @throws LogFailure LOG_DISK when it may or may not be; what `edit` and `parse` throw
   */
  change<Answer>(edit: Edit<Value, Answer>): Promise<Answer> {
    return this.#ask(edit, false)
  }

  #ask<Answer>(edit: Edit<Value, Answer>, isFresh: boolean): Promise<Answer> {
    const { promise, resolve, reject } = Promise.withResolvers<Answer>()
    const waiting = { edit, isFresh, resolve: resolve as Waiting<Value>['resolve'], reject }
    this.#queue.push(waiting)
    this.#working ??= this.#work()
    return promise
  }

  async #work(): Promise<void> {
    while (this.#queue.length > 0) {
      const group = this.#queue.splice(0)
      try {
        await this.#write(group)
      } catch (error) {
        // It may have been written: what is there is looked up before the next.
        this.#seen = undefined
        for (const { reject } of group) reject(error)
      }
    }
    this.#working = undefined
  }

  async #write(group: readonly Waiting<Value>[]): Promise<void> {
    const { notes, name, clock, random } = this.#options
    if (notes.isShared && group.some(({ isFresh }) => isFresh)) this.#seen = undefined
    for (let tries = 0; tries < maxTries; ) {
      const isFresh = !notes.isShared || !this.#seen
      this.#seen ??= await this.#look()
      const { value: before, text: textBefore, revision } = this.#seen
      let value = before
      const settle = group.map(({ edit, resolve, reject }) => {
        try {
          const { value: changed, answer } = edit(value)
          value = changed
          return () => resolve(answer)
        } catch (error) {
          return () => reject(error)
        }
      })
      const text = value === before ? textBefore : value && JSON.stringify(value)
      if (text === textBefore) {
        // Whoever acts on an answer that changes nothing must not act on what was long ago.
        if (!isFresh) {
          this.#seen = undefined
          continue
        }
        for (const each of settle) each()
        return
      }
      const written = await notes.write(name, text, revision)
      if (written !== moved) {
        this.#seen = { value, text, revision: written }
        for (const each of settle) each()
        return
      }
      this.#seen = undefined
      // Once is what another collector's change costs; more often they are at it together.
      if (tries++ === 0) continue
      const pauseMs = Math.min(maxPauseMs, firstPauseMs * 2 ** tries)
      await sleep(clock, pauseMs * (0.5 + random.uniform()))
    }
    throw new LogFailure('LOG_DISK', `${name}: others keep changing it`)
  }

  async #look() {
    const { notes, name, parse } = this.#options
    const { text, revision } = await notes.read(name)
    return { value: text === undefined ? undefined : parse(text), text: text?.trim(), revision }
  }
}
