import type { z } from 'zod'
import { CodedFailure } from '../../shared/failure.ts'
import type { Logger } from '../../shared/log.ts'
import type { Clock, Random } from '../../shared/ports.ts'
import type { Stream } from '../../shared/reading.ts'
import type { LogRecord } from '../fanout/record.ts'

/**
 * An output. The runner gives it one slice after the other and never two at a time; whatever it throws, the
 * runner closes it, waits, opens it anew and goes on from what is durable. So it retries nothing itself,
 * and a slice may come a second time unless it keeps its own positions.
 */
export interface Sink extends AsyncDisposable {
  /**
   * Only of an output that commits where it stands with the records themselves: by partition the offset
   * behind the last record that it has, as found at opening. What is told here counts, and what is not
   * there begins anew. Such an output gets every record once; without, the runner's own durable cursor
   * counts, and a crash may repeat what came last.
   */
  readonly positions?: ReadonlyMap<number, number>

  /**
   * Longest that it keeps records back to write them in one piece, ms. Only of an output whose `write` may
   * answer `held`.
   */
  readonly holdMs?: number

  /**
   * Writes a slice. A record that the output will never take goes to `refuse`, and the others are written.
   *
   * @param refuse puts records into the dead letter; resolves once they are durable there, which must be
   *   before the slice is
   * @param signal at its abort the sink gives up at once, and throws
   * @returns `durable` once all that was given so far survives a power cut, or `held` when some of it is
   *   kept back for `flush`, which then counts as not written
   * @throws SinkFailure, or anything
   */
  write(slice: Slice, refuse: Refuse, signal: AbortSignal): Promise<'durable' | 'held'>

  /** Makes durable what was held back; called when `holdMs` is over, when it is paused or stops. */
  flush?(signal: AbortSignal): Promise<void>
}

/** Consecutive records of one partition, less those that do not match. */
export interface Slice {
  stream: Stream
  partition: number
  /** In order of offsets. May be empty: then only the position moves. */
  records: readonly LogRecord[]
  /** Where the slice begins and ends in the partition: offsets, `to` exclusive. */
  from: number
  to: number
  /**
   * It was asked for again (`headgate sink backfill`): its records may be there already, and the output's
   * own position does not move.
   */
  again: boolean
}

export interface Refusal {
  record: LogRecord
  /** One line for a person. */
  reason: string
}
export type Refuse = (refusals: readonly Refusal[]) => Promise<void>

/** What an output is opened with. */
export interface SinkContext {
  /** The sink's name in the configuration: letters, digits, - and _. */
  name: string
  stream: Stream
  /** Of the log. */
  partitions: number
  /** Of this log; what tells apart two collectors that write to one place under one name. */
  origin: string
  /** Several collectors have the log: who ran the sink before may be at it still, and only `kept` is safe. */
  isShared: boolean
  kept: Kept
  clock: Clock
  random: Random
  logger: Logger
}

/**
 * A small document of the output's own, JSON, which is durable with the sink's position. Where several
 * collectors have the log, only the one whose turn it is can write it.
 */
export interface Kept {
  /** As it was written last; undefined when it never was. Not to be trusted more than a file. */
  readonly value: unknown
  /** Resolves once it survives a power cut. @throws when it may or may not do so */
  write(value: unknown): Promise<void>
}

/**
 * A kind of output, as `sinks:` in collector.yaml names it. Only its schema is loaded with every collector;
 * `open` imports the rest.
 */
export interface SinkKind<Schema extends z.ZodType = z.ZodType> {
  /** Of what stands under the kind's name: `z.strictObject` with bounds and defaults. */
  schema: Schema
  /** What is wrong with it for a stream, if anything. */
  problem?(config: z.output<Schema>, stream: Stream): string | undefined
  /** How many records a slice has at most, and how long it may wait to fill once it has one. */
  slice(config: z.output<Schema>): { records: number; waitMs: number }
  /** @throws SinkFailure */
  open(config: z.output<Schema>, context: SinkContext): Promise<Sink>
}

/** Keeps a kind's schema and its functions together. */
export function sinkKind<Schema extends z.ZodType>(kind: SinkKind<Schema>): SinkKind<Schema> {
  return kind
}

export const sinkFailures = {
  SINK_UNREACHABLE: { retry: true, meaning: 'the output cannot be reached' },
  SINK_BUSY: { retry: true, meaning: 'the output asks to wait' },
  SINK_REFUSED: { retry: true, meaning: 'the output does not let us write' },
  SINK_MOVED: { retry: true, meaning: 'somebody else writes under this name' },
} as const
export type SinkFailureCode = keyof typeof sinkFailures

/** What the output did; all of them are tried again, since somebody may mend it meanwhile. */
export class SinkFailure extends CodedFailure<SinkFailureCode> {
  /** At least so long until the next try, ms. */
  readonly retryAfterMs: number

  constructor(
    code: SinkFailureCode,
    detail: string,
    options: { cause?: unknown; retryAfterMs?: number } = {},
  ) {
    super(sinkFailures, code, detail, options)
    this.name = 'SinkFailure'
    this.retryAfterMs = options.retryAfterMs ?? 0
  }
}
