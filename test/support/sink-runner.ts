import { z } from 'zod'
import type { LogRecord } from '../../collector/fanout/record.ts'
import { nodeDisk } from '../../collector/log/embedded/disk.ts'
import type { EmbeddedLog } from '../../collector/log/embedded/embedded.ts'
import { DiskNotes } from '../../collector/log/embedded/notes.ts'
import type { LogEngine } from '../../collector/log/engine.ts'
import type { Notes } from '../../collector/log/notes.ts'
import type { SinkConfig } from '../../collector/sinks/config.ts'
import { SinkRunner } from '../../collector/sinks/runner.ts'
import type { Refuse, Sink, SinkKind, Slice } from '../../collector/sinks/sink.ts'
import type { Clock } from '../../shared/ports.ts'
import { systemClock, systemRandom } from '../../shared/system.ts'
import { cleanUp, type Test } from './clean-up.ts'
import { openLog } from './embedded-log.ts'
import { Seeded } from './seeded.ts'
import { silentLog } from './silent-log.ts'

/** An output in memory that does what a test wants. */
export class TestOutput {
  /** What it was given and did not throw at, in order. */
  readonly slices: Slice[] = []
  opened = 0
  /** Most slices that it had at the same time. */
  mostAtOnce = 0
  /** Slices that were made durable by `flush`. */
  flushed = 0
  /** Called with each slice before it is taken; may throw, or take its time. */
  before: (slice: Slice, refuse: Refuse) => unknown = () => {}
  holdMs: number | undefined
  /** Where it says that it stands, if it does. */
  positions: Map<number, number> | undefined
  limits = { records: 100, waitMs: 1 }
  #atOnce = 0

  readonly kind: SinkKind = {
    schema: z.unknown(),
    slice: () => this.limits,
    open: async () => {
      this.opened += 1
      return this.#sink()
    },
  }

  /** Sequences that it was given, in order. */
  get sequences(): number[] {
    return this.slices.flatMap(({ records }) => records.map(({ sequence }) => sequence ?? 0))
  }

  get records(): LogRecord[] {
    return this.slices.flatMap(({ records }) => [...records])
  }

  #sink(): Sink {
    return {
      ...(this.positions && { positions: new Map(this.positions) }),
      ...(this.holdMs !== undefined && { holdMs: this.holdMs }),
      write: async (slice, refuse) => {
        this.#atOnce += 1
        this.mostAtOnce = Math.max(this.mostAtOnce, this.#atOnce)
        try {
          await this.before(slice, refuse)
        } finally {
          this.#atOnce -= 1
        }
        this.slices.push(slice)
        if (!slice.again) this.positions?.set(slice.partition, slice.to)
        return this.holdMs === undefined ? 'durable' : 'held'
      },
      flush: async () => {
        this.flushed = this.slices.length
      },
      [Symbol.asyncDispose]: async () => {},
    }
  }
}

/** A sink of `output` on the log in `folder`; closed with the test. */
export async function startRunner(
  t: Test,
  output: { readonly kind: SinkKind },
  options: {
    log: LogEngine
    folder: string
    /** Default: those in the folder. */
    notes?: Notes
    config?: Partial<SinkConfig>
    clock?: Clock
    isStarted?: boolean
    /** Others append to the log, too. */
    isShared?: boolean
  },
): Promise<SinkRunner> {
  const { log, folder, clock = systemClock, isStarted = true, isShared = false } = options
  const disk = nodeDisk(folder)
  const seeded = new Seeded(1)
  await disk.makeDirectory('sinks')
  const runner = await SinkRunner.open({
    config: {
      name: 'test',
      stream: 'readings',
      match: {},
      from: 'beginning',
      deadLetter: 2 ** 20,
      retry: { base: 1_000, max: 60_000 },
      kindName: 'test',
      kind: output.kind,
      options: undefined,
      ...options.config,
    },
    log,
    notes: options.notes ?? new DiskNotes(disk),
    disk,
    origin: 'origin-1',
    self: { id: folder, at: 'here' },
    leaseMs: 60_000,
    isAlone: !isShared,
    clock,
    random: { ...systemRandom, uniform: () => seeded.uniform() },
    logger: silentLog,
  })
  cleanUp(t, () => runner.close())
  if (isStarted) runner.start()
  return runner
}

/** An embedded log in a folder, closed with the test. */
export async function logIn(t: Test, folder: string, partitions = 1): Promise<EmbeddedLog> {
  const log = await openLog(nodeDisk(folder), { partitions })
  cleanUp(t, () => log.close())
  return log
}
