import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Logger } from '../../shared/log.ts'
import type { Disk } from '../../shared/ports.ts'
import { Checkpoints } from './checkpoints.ts'
import type { Fact } from './facts.ts'
import { type Entry, Journal, JournalBroken } from './journal.ts'
import { FleetState } from './state.ts'

export interface BookOptions {
  /** Where `audit.jsonl` is; made when absent. */
  folder: string
  /** For the folder `checkpoints`. */
  disk: Disk
  nowMs: () => number
  logger: Logger
  /** Facts between two checkpoints. */
  factsPerCheckpoint?: number
}

/** About half a second of a start, and a rollout to some thousand agents. */
const usualFactsPerCheckpoint = 20_000

/**
 * What a fleet has come to, and how. Facts go into its journal, which is the truth; their sum is kept beside it
 * now and then, so that a start takes as long as the fleet is large, and not as old.
 */
export class FleetBook implements AsyncDisposable {
  readonly journal: Journal<Fact>
  readonly state: FleetState
  readonly #checkpoints: Checkpoints
  readonly #logger: Logger
  readonly #factsPerCheckpoint: number
  /** Facts since the newest checkpoint. */
  #since: number
  #keeping: Promise<void> | undefined

  /** @throws JournalBroken */
  static async open(options: BookOptions): Promise<FleetBook> {
    const { folder, disk, nowMs, logger } = options
    await mkdir(folder, { recursive: true, mode: 0o700 })
    const path = join(folder, 'audit.jsonl')
    const checkpoints = await Checkpoints.open(disk)
    for await (const { digest, place, sum } of checkpoints.newestFirst()) {
      const state = new FleetState(sum)
      let isNamed = false
      const replay = (entry: Entry<Fact>) => {
        if (entry.fact.act === 'checkpoint' && entry.fact.digest === digest) isNamed = true
        state.apply(entry)
      }
      try {
        const journal = await Journal.open<Fact>(path, nowMs, replay, place)
        if (isNamed) return new FleetBook(options, checkpoints, journal, state, place.n)
        // A crash fell between the two; or somebody has put it there.
        await journal[Symbol.asyncDispose]()
      } catch (error) {
        if (!(error instanceof JournalBroken)) throw error
        logger.warn({ err: error.message }, 'a checkpoint of the fleet does not fit its journal')
      }
    }
    const state = new FleetState()
    const journal = await Journal.open<Fact>(path, nowMs, (entry) => state.apply(entry))
    return new FleetBook(options, checkpoints, journal, state, 0)
  }

  private constructor(
    { logger, factsPerCheckpoint = usualFactsPerCheckpoint }: BookOptions,
    checkpoints: Checkpoints,
    journal: Journal<Fact>,
    state: FleetState,
    covered: number,
  ) {
    this.#checkpoints = checkpoints
    this.#logger = logger
    this.#factsPerCheckpoint = factsPerCheckpoint
    this.journal = journal
    this.state = state
    this.#since = journal.length - covered
    this.#keepSometimes()
  }

  /** Applies a fact, and says when it is durable. @throws when the journal cannot be written any more */
  record(by: string, fact: Fact): { entry: Entry<Fact>; durable: Promise<void> } {
    const recorded = this.journal.append(by, fact)
    this.state.apply(recorded.entry)
    this.#since += 1
    this.#keepSometimes()
    return recorded
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#keeping
    await this.journal[Symbol.asyncDispose]()
  }

  #keepSometimes(): void {
    if (this.#since < this.#factsPerCheckpoint || this.#keeping) return
    this.#since = 0
    this.#keeping = this.#keep()
      .catch((error) =>
        // Nothing rests on it but how long the next start takes.
        this.#logger.warn({ err: String(error) }, 'could not keep a checkpoint of the fleet'),
      )
      .finally(() => {
        this.#keeping = undefined
      })
  }

  async #keep(): Promise<void> {
    const { digest, keep } = this.#checkpoints.take(this.journal.end, this.state.sum)
    await keep()
    // It counts once the journal names it, behind all that it stands for.
    await this.record('collector', { act: 'checkpoint', digest }).durable
    await this.#checkpoints.forgetOlder()
  }
}
