import { StateProblem, type StateReader, type StateWriter } from '../state-bytes.ts'
import { Aggregate, isAggregate, needsSketch } from './aggregate.ts'
import { Sketch } from './sketch.ts'

export interface WindowConfig {
  /** A window begins every so often, and is so long: a multiple of it. ms */
  everyMs: number
  sizeMs: number
  /** How far behind the device's newest reading one may come and still count. */
  latenessMs: number
  emit: readonly string[]
}

/** Where the aggregates of a closed window go. */
export interface WindowListener {
  aggregate(name: string, startMs: number, value: number, quality: number): void
}

/** Most windows that are open at once; a configuration that asks for more is refused. */
export const maxOpen = 1000

/**
 * Windows over the readings of one series, tumbling or sliding, by event time. Readings are gathered in
 * panes of `everyMs`; a window is the panes that it spans.
 *
 * State: an aggregate a pane, size / every + lateness / every of them at most.
 */
export class Windows {
  readonly config: WindowConfig
  readonly #listener: WindowListener
  /** By start, ms. */
  readonly #panes = new Map<number, Aggregate>()
  /** Windows that end here or earlier are closed. A multiple of `everyMs`. */
  #closedMs = -Infinity

  constructor(config: WindowConfig, listener: WindowListener) {
    this.config = config
    this.#listener = listener
  }

  /** Panes that hold something. */
  get open(): number {
    return this.#panes.size
  }

  /** Where the first pane begins that holds anything, ms; Infinity when there is none. */
  get oldestMs(): number {
    return Math.min(...this.#panes.keys())
  }

  /** Where the first open window ends that holds anything, ms; Infinity when there is none. */
  get nextEndMs(): number {
    let next = Infinity
    for (const pane of this.#panes.keys())
      next = Math.min(
        next,
        Math.max(pane + this.config.everyMs, this.#closedMs + this.config.everyMs),
      )
    return next
  }

  /** @param value finite @returns false when the windows that it belongs to are closed */
  add(value: number, timeMs: number, quality: number): boolean {
    const { everyMs, sizeMs, emit } = this.config
    const start = Math.floor(timeMs / everyMs) * everyMs
    if (start + sizeMs <= this.#closedMs) return false
    let pane = this.#panes.get(start)
    if (!pane) {
      pane = new Aggregate(needsSketch(emit) ? new Sketch() : undefined)
      this.#panes.set(start, pane)
    }
    pane.add(value, timeMs, quality)
    return true
  }

  /** Closes windows that end at `endMs` or earlier; Infinity closes all. */
  close(endMs: number): void {
    if (this.#panes.size === 0) return
    const { everyMs, sizeMs, emit } = this.config
    const starts = [...this.#panes.keys()].sort((a, b) => a - b)
    let from = this.#closedMs - sizeMs + everyMs
    for (const pane of starts) {
      // Windows that hold this pane, those of the panes before it left out.
      let start = Math.max(pane - sizeMs + everyMs, from)
      for (; start <= pane && start + sizeMs <= endMs; start += everyMs) {
        this.#emit(start, starts, emit)
        this.#closedMs = start + sizeMs
        from = start + everyMs
      }
    }
    if (endMs < Infinity)
      this.#closedMs = Math.max(this.#closedMs, Math.floor(endMs / everyMs) * everyMs)
    for (const pane of starts) if (pane + sizeMs <= this.#closedMs) this.#panes.delete(pane)
  }

  #emit(startMs: number, panes: readonly number[], names: readonly string[]): void {
    const endMs = startMs + this.config.sizeMs
    const whole = new Aggregate(needsSketch(names) ? new Sketch() : undefined)
    for (const pane of panes)
      if (pane >= startMs && pane < endMs) whole.merge(this.#panes.get(pane)!)
    for (const name of names)
      this.#listener.aggregate(name, startMs, whole.value(name), whole.quality)
  }

  /** With the configuration that it is kept under, so that it can be closed under another one. */
  save(writer: StateWriter): void {
    const { everyMs, sizeMs, latenessMs, emit } = this.config
    writer.varint(everyMs)
    writer.varint(sizeMs)
    writer.varint(latenessMs)
    writer.varint(emit.length)
    for (const name of emit) writer.text(name)
    writer.float(this.#closedMs)
    writer.varint(this.#panes.size)
    for (const [start, pane] of this.#panes) {
      writer.float(start)
      pane.save(writer)
    }
  }

  /** @throws StateProblem */
  static load(reader: StateReader, listener: WindowListener): Windows {
    const everyMs = reader.varint()
    const sizeMs = reader.varint()
    const latenessMs = reader.varint()
    const emit = Array.from({ length: reader.count(100) }, () => reader.text())
    if (everyMs < 1 || sizeMs % everyMs !== 0 || !emit.every(isAggregate))
      throw new StateProblem('windows of another version')
    const windows = new Windows({ everyMs, sizeMs, latenessMs, emit }, listener)
    windows.#closedMs = reader.float()
    for (let left = reader.count(2 * maxOpen); left > 0; left--)
      windows.#panes.set(reader.float(), Aggregate.load(reader))
    return windows
  }

  /** Newest end of a closed window: the device's watermark was at least there. */
  get closedMs(): number {
    return this.#closedMs
  }

  /** Whether it can go on under a configuration. */
  fits({ everyMs, sizeMs, latenessMs, emit }: WindowConfig): boolean {
    const own = this.config
    return (
      own.everyMs === everyMs &&
      own.sizeMs === sizeMs &&
      own.latenessMs === latenessMs &&
      own.emit.length === emit.length &&
      own.emit.every((name, index) => name === emit[index])
    )
  }
}
