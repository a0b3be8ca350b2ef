import type { Clock } from '../../shared/ports.ts'
import type { Stream } from '../../shared/reading.ts'
import type { Piece } from '../fanout/fanout.ts'
import type { LogRecord } from '../fanout/record.ts'
import type { Slice } from './sink.ts'

export interface FeedOptions {
  stream: Stream
  /** By partition, where the first slice begins. */
  positions: readonly number[]
  wants: (record: LogRecord) => boolean
  again: boolean
  /** Records in a slice, and how long it may wait to fill. */
  limits: { records: number; waitMs: number }
  clock: Clock
  /** Called when there is something to take, or nothing more will come. */
  arrived(): void
  /** Told of offsets that the disk has lost. */
  damaged(first: number, last: number, partition: number): void
}

/** Bytes of texts and payloads in the slices that are taken together, about: few records can be large. */
const maxBytes = 16 * 2 ** 20

/** Records that are passed over may be so many times those that are wanted before the position moves. */
const maxPassedOver = 16

/**
 * Makes slices of what a reader finds, one of each partition at a time. The reader is asked for its next
 * piece only when what it gave before was taken, so what is held is bounded.
 */
export class Feed {
  readonly #options: FeedOptions
  readonly #positions: number[]
  readonly #pieces: AsyncIterator<Piece>
  #asked: Promise<void> = Promise.resolve()
  #arrived: IteratorResult<Piece> | undefined
  #failure: { error: unknown } | undefined

  constructor(pieces: AsyncIterable<Piece>, options: FeedOptions) {
    this.#options = options
    this.#positions = [...options.positions]
    this.#pieces = pieces[Symbol.asyncIterator]()
    this.#ask()
  }

  /** Whether `take` gives something at once. @throws what reading threw */
  get hasSome(): boolean {
    if (this.#failure) throw this.#failure.error
    return this.#arrived !== undefined && !this.#arrived.done
  }

  /** Nothing more will come. */
  get isDone(): boolean {
    return this.#arrived?.done === true
  }

  /** What is there, and what comes until the slices are full or have waited; call it when it `hasSome`. */
  async take(): Promise<Slice[]> {
    const { limits, clock } = this.#options
    const slices = new Map<number, { slice: Slice; records: LogRecord[] }>()
    let records = 0
    let passedOver = 0
    let bytes = 0
    let cancel = () => {}
    const over = new Promise<void>((resolve) => {
      cancel = clock.timer(limits.waitMs, resolve)
    })
    try {
      while (this.hasSome) {
        const piece = this.#arrived!.value as Piece
        this.#ask()
        for (const record of this.#add(piece, slices)) {
          records += 1
          bytes += bytesOf(record)
        }
        if (piece.type === 'records') passedOver += piece.records.length
        const isFull = records >= limits.records || bytes >= maxBytes
        if (isFull || passedOver >= maxPassedOver * limits.records) break
        // Everybody else goes first: a sink that catches up must not keep batches from coming in.
        await new Promise((resolve) => setImmediate(resolve))
        if (!this.#arrived && !this.#failure) await Promise.race([this.#asked, over])
      }
    } finally {
      cancel()
    }
    return [...slices.values()].map(({ slice }) => slice)
  }

  /** Call it once what the reader waits on has ended. */
  async close(): Promise<void> {
    await this.#asked
    await this.#pieces.return?.(undefined)
  }

  #ask(): void {
    this.#arrived = undefined
    this.#asked = this.#pieces.next().then(
      (result) => {
        this.#arrived = result
      },
      (error) => {
        this.#failure = { error }
      },
    )
    void this.#asked.then(this.#options.arrived)
  }

  /** Puts a piece into its partition's slice; returns the records that are wanted. */
  #add(
    piece: Piece,
    slices: Map<number, { slice: Slice; records: LogRecord[] }>,
  ): readonly LogRecord[] {
    const { stream, again, wants, damaged } = this.#options
    const wanted = piece.type === 'records' ? piece.records.filter(wants) : []
    if (piece.type === 'damage') damaged(piece.first, piece.last, piece.partition)
    const partition = piece.type === 'damage' ? piece.partition : piece.records[0]!.partition
    const to = 1 + (piece.type === 'damage' ? piece.last : piece.records.at(-1)!.offset)
    let open = slices.get(partition)
    if (!open) {
      const records: LogRecord[] = []
      const from = this.#positions[partition] ?? 0
      open = { records, slice: { stream, partition, records, from, to, again } }
      slices.set(partition, open)
    }
    open.records.push(...wanted)
    open.slice.to = to
    this.#positions[partition] = to
    return wanted
  }
}

/** About what a record takes beside its series, which it shares. */
function bytesOf(record: LogRecord): number {
  const base = 200
  switch (record.stream) {
    case 'readings': {
      const { value } = record.reading
      return typeof value === 'string' ? base + 2 * value.length : base
    }
    case 'quarantine':
      return base + record.message.payload.length
    case 'gaps':
      return base + 100 * record.gap.series.length
    default:
      return 10 * base
  }
}
