import type { BatchHeader, Encoding, LaneRecord } from '../../shared/batch.ts'
import type { Chain } from '../../shared/chain.ts'
import { CodedFailure } from '../../shared/failure.ts'
import type { Lane, Stream } from '../../shared/reading.ts'
import type { Notes } from './notes.ts'

/**
 * The stream log: keeps batches as they were received, in the order in which it took them, and remembers
 * for good what it holds of every agent. Each engine passes `test/contract/log-engine.ts`.
 */
export interface LogEngine extends AsyncDisposable {
  /** Numbered from 0; an agent's lanes stay in one of them, whatever becomes of their number. */
  readonly partitions: number

  /** `healing` while writes fail and the engine works on it; reads go on. */
  readonly state: 'open' | 'healing' | 'closed'

  /** What those remember who read the log; where it outlives this process as the log does. */
  readonly notes: Notes

  /**
   * Checks the batch's sequence against what is held and appends it. Resolves once the answer is true
   * for good: an accepted batch is durable, and so is what a refusal says is held.
   *
   * @throws LogFailure LOG_DISK when it could not be made durable, LOG_CLOSED; WireFailure when its check fails;
   *   nothing was taken then
   */
  append(entry: Entry): Promise<AppendAnswer>

  /** What is held of one lane; `held` 0 of an unknown one. */
  held(agent: string, incarnation: Uint8Array, lane: Lane): Promise<Held>

  /**
   * What one partition holds of one stream, in order of offsets, one item at a time as the caller asks
   * for it. Ends at what was the end when it got there or, with `follow`, when the signal aborts.
   */
  read(request: ReadRequest): AsyncIterable<LogItem>

  /** Of one partition, or the sums over all of them. */
  statistics(partition?: number): Promise<Statistics>

  /** Removes what retention keeps no longer, as the engine does now and then by itself. */
  retain(): Promise<void>

  /** Finishes appends in flight; safe to call twice. */
  close(): Promise<void>
}

/** A batch on its way into the log. */
export interface Entry {
  header: BatchHeader
  /** What each stream gets from it. */
  feeds: Record<Stream, Feed>
  encoding: Encoding
  /** As received; the engine keeps it until the answer, so it must not be changed. */
  body: Uint8Array
  /** Collector's wall time, ms. */
  arrivedMs: number
  /**
   * Looks through what has not been looked at; further calls do nothing. Nothing is answered and nothing given to
   * readers before. Absent where nothing is left to look at.
   *
   * @throws WireFailure when it is no batch after all
   */
  check?: () => void
}

/** What a stream gets from a batch. */
export interface Feed {
  /** Records. */
  count: number
  /** Their earliest and latest time, ms; Infinity and −Infinity where there is none. */
  fromMs: number
  toMs: number
}

export const noFeed: Readonly<Feed> = {
  count: 0,
  fromMs: Number.POSITIVE_INFINITY,
  toMs: Number.NEGATIVE_INFINITY,
}

export interface Held {
  /** Last sequence held. */
  held: number
  /** Running hash behind it. */
  chain: Chain
}

export type AppendAnswer =
  | ({ code: 'accepted'; alarms: Alarm[] } & Held)
  | ({ code: 'duplicate' } & Held)
  | ({ code: 'fork' } & Held)
  /** `incarnation` and `lane` say of what: of the batch's own, or of its predecessor. */
  | ({ code: 'hole'; incarnation: Uint8Array; lane: Lane } & Held)

/**
 * What an accepted batch gives away about its agent:
 * `clone`: another incarnation, which this one does not descend from, is still sending;
 * `restored`: a new incarnation descends from an older one than the current (an image was put back);
 * `unchained`: a new incarnation names no predecessor, though the agent is known (its folder was wiped).
 */
export type Alarm = 'clone' | 'restored' | 'unchained'

export interface ReadRequest {
  stream: Stream
  /** Default 0. */
  partition?: number | undefined
  /** First offset wanted, and the first no longer wanted. */
  fromOffset?: number | undefined
  toOffset?: number | undefined
  /** Batches with nothing in [fromMs, toMs) are left out; the records of a batch are not looked at. */
  fromMs?: number | undefined
  toMs?: number | undefined
  /** At the end, wait for more. */
  follow?: boolean
  signal?: AbortSignal | undefined
}

/** More than any collector takes; a log may have been written under a higher limit than today's. */
export const maxInflatedBytes = 256 * 1024 * 1024

export type LogItem = ({ type: 'batch' } & StoredBatch) | Damage

/** A batch as the log keeps it. */
export interface StoredBatch {
  partition: number
  agent: string
  /** 16 bytes. */
  incarnation: Uint8Array
  lane: Lane
  /** Sequences, inclusive. */
  first: number
  last: number
  /** Running hash before and behind them. */
  before: Chain
  after: Chain
  /** 16 bytes, in a lane's first batch; undefined elsewhere. */
  predecessor: Uint8Array | undefined
  /** What each stream got from it, and the offset of the first record. */
  feeds: Record<Stream, Feed & { first: number }>
  arrivedMs: number
  encoding: Encoding
  body: Uint8Array
}

/** Offsets of the stream that the disk has lost. */
export interface Damage {
  type: 'damage'
  stream: Stream
  partition: number
  /** Inclusive. */
  first: number
  last: number
}

export type Statistics = Record<Stream, StreamStatistics>

export interface StreamStatistics {
  records: number
  batches: number
  /** Bodies as received; a batch that feeds several streams counts for the first of them. */
  bytes: number
  /**
   * First offset still there, and the next to be given. Equal when the stream is empty. Offsets grow;
   * whether some are left out is the engine's affair.
   */
  first: number
  next: number
  /** Earliest and latest time; undefined when there is none. */
  fromMs: number | undefined
  toMs: number | undefined
}

export const logFailures = {
  LOG_DISK: { retry: true, meaning: 'the log cannot write' },
  LOG_CLOSED: { retry: true, meaning: 'the log is closed' },
  LOG_REFUSED: { retry: false, meaning: 'the log cannot be used as it is' },
  LOG_NEWER: { retry: false, meaning: 'the log was written by a newer version' },
} as const
export type LogFailureCode = keyof typeof logFailures

export class LogFailure extends CodedFailure<LogFailureCode> {
  constructor(code: LogFailureCode, detail: string, options?: { cause?: unknown }) {
    super(logFailures, code, detail, options)
    this.name = 'LogFailure'
  }
}

/** One value per stream. Written out, since every batch has some. */
export function perStream<T>(value: (stream: Stream) => T): Record<Stream, T> {
  return {
    readings: value('readings'),
    alerts: value('alerts'),
    quarantine: value('quarantine'),
    gaps: value('gaps'),
    ledger: value('ledger'),
  }
}

/** Which stream the records of a lane feed. A gateway's clock is news of its state, as its ledger is. */
export const streamOfRecord = {
  quarantine: 'quarantine',
  alert: 'alerts',
  clock: 'ledger',
} as const satisfies Record<LaneRecord['type'], Stream>
