import { mkdir } from 'node:fs/promises'
import { nodeDisk } from '../../log/embedded/disk.ts'
import { openPlace } from '../../log/tier/place.ts'
import { type TierStore, wholeObject } from '../../log/tier/store.ts'
import type { ParquetConfig } from '../parquet.ts'
import { type Refuse, type Sink, type SinkContext, SinkFailure, type Slice } from '../sink.ts'
import { Cut } from './cut.ts'
import { type Manifest, type ManifestPlace, manifestIn, manifestKept } from './manifest.ts'

/**
 * Files of a cut, and a manifest that says up to where the log is in files:
 *
 * ```
 * stream=readings/date=2026-01-31/<origin>-<name>-00000017.parquet
 * _headgate/<origin>-<name>-readings.json
 * ```
 *
 * The manifest says where a cut ends and what its files are called before any of them is written, and that
 * they count once all of them are. Whatever happens in between, the cut is made again of the same records
 * under the same names, so each record is there once, also when a write that was given up arrives late.
 *
 * Where several collectors have the log the manifest is no file but part of what the sink remembers: who was
 * taken over from could otherwise put an older one in its place. What such a one still writes are files of the
 * cut that it had begun, the same as those of whoever has the cut to make again.
 */
export class ParquetSink implements Sink {
  readonly positions: ReadonlyMap<number, number>
  readonly holdMs: number
  readonly #config: ParquetConfig
  readonly #context: SinkContext
  readonly #store: TierStore
  readonly #place: ManifestPlace
  #manifest: Manifest
  /** A cut that was begun before, until it is made again. */
  #redone: Cut | undefined
  #current: Cut
  #again: Cut

  static async open(config: ParquetConfig, context: SinkContext): Promise<Sink> {
    const store = await openPlace(config, async (folder) => {
      await mkdir(folder, { recursive: true })
      return nodeDisk(folder)
    })
    return ParquetSink.openOn(store, config, context)
  }

  static async openOn(
    store: TierStore,
    config: ParquetConfig,
    context: SinkContext,
  ): Promise<ParquetSink> {
    const place = context.isShared
      ? manifestKept(context.kept)
      : manifestIn(store, manifestPath(context))
    return new ParquetSink(config, context, store, place, await place.read())
  }

  private constructor(
    config: ParquetConfig,
    context: SinkContext,
    store: TierStore,
    place: ManifestPlace,
    manifest: Manifest,
  ) {
    this.#config = config
    this.#context = context
    this.#store = store
    this.#place = place
    this.#manifest = manifest
    this.holdMs = config.every
    const positions = Object.entries(manifest.positions)
    this.positions = new Map(positions.map(([partition, to]) => [Number(partition), to]))
    if (manifest.pending) this.#redone = new Cut(config)
    this.#current = new Cut(config)
    this.#again = new Cut(config)
  }

  async write(slice: Slice, _refuse: Refuse, _signal: AbortSignal): Promise<'durable' | 'held'> {
    const { records, partition, from, to } = slice
    if (slice.again) await this.#again.add(slice, records, to)
    else {
      const end = this.#redone ? (this.#manifest.pending!.to[partition] ?? 0) : 0
      if (from < end) {
        const before = records.filter(({ offset }) => offset < end)
        await this.#redone!.add(slice, before, Math.min(to, end))
        if (this.#isRedone()) await this.#finishRedone()
      }
      if (to > end) {
        const behind = end > from ? records.filter(({ offset }) => offset >= end) : records
        await this.#current.add({ ...slice, from: Math.max(from, end) }, behind, to)
      }
    }
    if (!this.#current.isFull && !this.#again.isFull) return 'held'
    await this.flush()
    return 'durable'
  }

  async flush(): Promise<void> {
    if (this.#redone) await this.#undo()
    if (!this.#again.isEmpty) await this.#finishAgain()
    if (this.#current.to.size > 0) await this.#finish(this.#current)
    this.#current = new Cut(this.#config)
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  #isRedone(): boolean {
    const ends = Object.entries(this.#manifest.pending!.to)
    return ends.every(([partition, to]) => this.#redone!.to.get(Number(partition)) === to)
  }

  async #finishRedone(): Promise<void> {
    await this.#finish(this.#redone!)
    this.#redone = undefined
  }

  async #finish(cut: Cut): Promise<void> {
    const { cut: number, positions, pending } = this.#manifest
    const files = [...cut.finish()].map(([day, bytes]) => ({
      path: this.#path(day, number),
      bytes,
    }))
    const paths = files.map(({ path }) => path)
    const to = Object.fromEntries(cut.to)
    const begun = new Set([...(pending?.paths ?? []), ...paths])
    if (files.length > 0)
      await this.#save({ ...this.#manifest, pending: { to, paths: [...begun] } })
    for (const { path, bytes } of files) await this.#store.put(path, wholeObject(bytes))
    // A record may be filed under another day than before: once its gateway has told the time.
    for (const path of paths) begun.delete(path)
    for (const path of begun) await this.#store.remove(path)
    await this.#save({ version: 1, cut: number + 1, positions: { ...positions, ...to } })
  }

  /** The log no longer gives what the cut was made of: what is there of it goes, and it is made anew. */
  async #undo(): Promise<never> {
    const { pending, ...rest } = this.#manifest
    for (const path of pending!.paths) await this.#store.remove(path)
    await this.#save({ ...rest, cut: rest.cut + 1 })
    throw new SinkFailure('SINK_BUSY', 'files that were begun could not be finished as they were')
  }

  /** Not in the manifest: what is written again may be there twice. */
  async #finishAgain(): Promise<void> {
    const { partition, offset } = this.#again.first!
    for (const [day, bytes] of this.#again.finish())
      await this.#store.put(this.#path(day, `again-${partition}-${offset}`), wholeObject(bytes))
    this.#again = new Cut(this.#config)
  }

  #path(day: string, cut: number | string): string {
    const { stream } = this.#context
    return `stream=${stream}/date=${day}/${nameOf(this.#context)}-${String(cut).padStart(8, '0')}.parquet`
  }

  async #save(manifest: Manifest): Promise<void> {
    await this.#place.write(manifest)
    this.#manifest = manifest
  }
}

function manifestPath(context: SinkContext): string {
  return `_headgate/${nameOf(context)}-${context.stream}.json`
}

/** Several logs may go to one place. */
function nameOf({ origin, name }: SinkContext): string {
  return `${encodeURIComponent(origin)}-${name}`
}
