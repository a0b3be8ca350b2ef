import { BoundedMap } from '../../shared/bounded-map.ts'
import {
  type AdmittedReading,
  type Arrival,
  type Series,
  SeriesTable,
} from '../../shared/reading.ts'
import type { StateChange } from '../state.ts'
import { Device } from './device.ts'
import type { Filter, FilterCounts, Judgement, Observer } from './filter.ts'
import { type HardState, readHardState } from './hard-state.ts'
import { matches } from './match.ts'
import type { FilterConfig } from './schema.ts'
import { StateProblem, StateReader, StateWriter } from './state-bytes.ts'
import { dresserOf, letGo, type PlacedRule, Track } from './track.ts'
import { Verdicts } from './verdicts.ts'
import { aggregateReadings } from './window/gathering.ts'

export interface FilterOptions {
  rules: FilterConfig
  /** What was committed of this filter's state; nothing for a new store. */
  saved?: Iterable<{ key: string; value: Uint8Array }>
  observer?: Observer
}

/** Makes a filter that goes on where the saved state ends, maybe under other rules. */
export function createFilter(options: FilterOptions): Filter {
  return new RuleFilter(options)
}

/** Series objects whose entry is found without looking at their names. */
const shortcuts = 100_000
/** No rule matches the series. */
const unmatched = Symbol('unmatched')
/** Its rule has as many series as it may. */
const beyond = Symbol('beyond')

/** A series that has state. */
interface Entry {
  readonly key: string
  readonly id: number
  /** Undefined when its state is from before, and no rule wants it any more. */
  track: Track | undefined
  /** Its hard state may differ from what is saved. */
  touched: boolean
  /** Its soft state does. */
  learned: boolean
  /** What is saved of it. */
  readonly stored: { name: boolean; hard: boolean; soft: boolean }
}

/**
 * The filter of a configuration: finds each series its rule, once, and keeps a track of it.
 *
 * State, under keys of its own space: `n<id>` is a series' name as JSON, `h<id>` its hard state, `s<id>`
 * its soft state.
 */
class RuleFilter implements Filter {
  readonly #rules: readonly PlacedRule[]
  /** Series that each rule keeps state for. */
  readonly #used: number[]
  readonly #verdicts: Verdicts
  readonly #table = new SeriesTable()
  readonly #entries = new Map<string, Entry>()
  readonly #shortcuts = new BoundedMap<Series, Entry | typeof unmatched | typeof beyond>(shortcuts)
  readonly #devices = new Map<string, Device>()
  readonly #writer = new StateWriter()
  #touched: Entry[] = []
  #lastId = 0
  /** Hard state to go on with, as soon as it is known when that is. */
  #resuming: { entry: Entry; state: HardState }[] = []
  /** State that belongs to nothing, to be deleted. */
  #stray: string[] = []
  /** Where the next checkpoint goes on. */
  #round: Iterator<Entry> | undefined
  #beyond = 0
  #unreadable = 0

  constructor({ rules, saved = [], observer }: FilterOptions) {
    this.#rules = rules.map((rule, index) => ({ rule, index }))
    this.#used = rules.map(() => 0)
    this.#verdicts = new Verdicts(observer)
    this.#load(saved)
  }

  judge(readings: readonly AdmittedReading[]): Judgement {
    for (const reading of readings) {
      this.#begin(reading.arrival)
      const entry = this.#entryOf(reading.series)
      if (typeof entry === 'symbol') {
        if (entry === beyond) this.#beyond++
        this.#verdicts.admit(reading)
        continue
      }
      entry.track!.take(reading)
      if (entry.track!.unsaved) this.#touch(entry)
      entry.learned = true
    }
    return this.#finish()
  }

  tick(now: Arrival): Judgement {
    this.#begin(now)
    for (const entry of this.#entries.values()) if (entry.track?.tick(now)) this.#touch(entry)
    for (const device of this.#devices.values()) device.tick(now.monotonicMs)
    return this.#finish()
  }

  flush(now: Arrival = this.#verdicts.arrival): Judgement {
    this.#begin(now)
    for (const entry of this.#entries.values()) if (entry.track?.release()) this.#touch(entry)
    for (const device of this.#devices.values()) device.flush()
    return this.#finish()
  }

  forget(lost: Iterable<{ device: string; metric: string }>): Judgement {
    this.#begin(this.#verdicts.arrival)
    const names = new Set<string>()
    for (const { device, metric } of lost) names.add(JSON.stringify([device, metric]))
    for (const entry of this.#entries.values()) {
      const { track } = entry
      if (!track || !names.has(JSON.stringify([track.series.device, track.series.metric]))) continue
      if (track.release()) this.#touch(entry)
    }
    return this.#finish()
  }

  checkpoint(maxBytes: number): StateChange[] {
    const changes: StateChange[] = []
    this.#round ??= this.#entries.values()
    for (let bytes = 0; bytes < maxBytes; ) {
      const { done, value: entry } = this.#round.next()
      if (done) {
        this.#round = undefined
        break
      }
      if (!entry.learned || !entry.track?.learns) continue
      entry.learned = false
      const value = entry.track.saveSoft(this.#writer)
      this.#put(changes, entry, 'soft', value)
      bytes += value.length
    }
    return changes
  }

  get counts(): FilterCounts {
    return {
      series: this.#entries.size,
      beyondMaxSeries: this.#beyond,
      late: this.#verdicts.late,
      unreadable: this.#unreadable,
    }
  }

  #entryOf(series: Series): Entry | typeof unmatched | typeof beyond {
    const known = this.#shortcuts.get(series)
    if (known !== undefined) return known
    const key = keyOf(series)
    const entry = this.#entries.get(key)
    const found = entry?.track ? entry : this.#enter(key, series)
    this.#shortcuts.set(series, found)
    return found
  }

  /** Makes an entry for a series that has none, where a rule has room for it. */
  #enter(key: string, series: Series): Entry | typeof unmatched | typeof beyond {
    const placed = this.#rules.find(({ rule }) => matches(rule.match, series))
    if (!placed) return unmatched
    if (this.#used[placed.index]! >= placed.rule.maxSeries) return beyond
    this.#used[placed.index]!++
    const entry = newEntry(key, ++this.#lastId)
    entry.track = this.#trackOf(entry, series, placed)
    this.#entries.set(key, entry)
    return entry
  }

  #trackOf(entry: Entry, series: Series, placed: PlacedRule): Track {
    return new Track(series, placed, {
      verdicts: this.#verdicts,
      table: this.#table,
      device: () => this.#deviceOf(series.device),
      touch: () => this.#touch(entry),
    })
  }

  #deviceOf(name: string): Device {
    let device = this.#devices.get(name)
    if (!device) {
      device = new Device()
      this.#devices.set(name, device)
    }
    return device
  }

  #touch(entry: Entry): void {
    if (entry.touched) return
    entry.touched = true
    this.#touched.push(entry)
  }

  /** Says when what follows is, and goes on with what was saved, the first time. */
  #begin(arrival: Arrival): void {
    this.#verdicts.arrival = arrival
    if (this.#resuming.length === 0) return
    const resuming = this.#resuming
    this.#resuming = []
    for (const { entry, state } of resuming) {
      if (entry.track) entry.track.load(state)
      else letGo(state, this.#verdicts)
      this.#touch(entry)
    }
  }

  #finish(): Judgement {
    const changes: StateChange[] = []
    for (const key of this.#stray) changes.push({ space: 'filter', key, value: undefined })
    this.#stray = []
    for (const entry of this.#touched) {
      entry.touched = false
      this.#put(changes, entry, 'hard', entry.track?.save(this.#writer))
      if (entry.track) continue
      this.#put(changes, entry, 'soft', undefined)
      changes.push({ space: 'filter', key: `n${entry.id}`, value: undefined })
      this.#entries.delete(entry.key)
    }
    this.#touched = []
    return this.#verdicts.take(changes)
  }

  #put(
    changes: StateChange[],
    entry: Entry,
    kind: 'hard' | 'soft',
    value: Uint8Array | undefined,
  ): void {
    const { id, key, stored } = entry
    if (value === undefined && !stored[kind]) return
    if (!stored.name) {
      changes.push({ space: 'filter', key: `n${id}`, value: encoder.encode(key) })
      stored.name = true
    }
    changes.push({ space: 'filter', key: `${kind[0]}${id}`, value })
    stored[kind] = value !== undefined
  }

  #load(saved: Iterable<{ key: string; value: Uint8Array }>): void {
    const kinds = { n: new Map<number, Uint8Array>(), h: new Map(), s: new Map() } as Record<
      string,
      Map<number, Uint8Array>
    >
    for (const { key, value } of saved) {
      const id = Number(key.slice(1))
      const kind = Number.isSafeInteger(id) && id > 0 ? kinds[key[0]!] : undefined
      if (kind) kind.set(id, value)
      else this.#stray.push(key)
    }
    const {
      n: names,
      h: hard,
      s: soft,
    } = kinds as { [kind in 'n' | 'h' | 's']: Map<number, Uint8Array> }
    for (const [id, value] of names) {
      const series = this.#seriesOf(value)
      if (!series) {
        this.#stray.push(`n${id}`)
        continue
      }
      this.#lastId = Math.max(this.#lastId, id)
      this.#restore(id, series, hard.get(id), soft.get(id))
      hard.delete(id)
      soft.delete(id)
    }
    for (const id of hard.keys()) this.#stray.push(`h${id}`)
    for (const id of soft.keys()) this.#stray.push(`s${id}`)
    this.#unreadable += this.#stray.length
  }

  #restore(
    id: number,
    series: Series,
    hard: Uint8Array | undefined,
    soft: Uint8Array | undefined,
  ): void {
    const key = keyOf(series)
    const placed = this.#rules.find(({ rule }) => matches(rule.match, series))
    const room = placed && this.#used[placed.index]! < placed.rule.maxSeries
    const entry = newEntry(key, id)
    entry.stored.name = true
    entry.stored.hard = hard !== undefined
    entry.stored.soft = soft !== undefined
    this.#entries.set(key, entry)
    if (placed && room) {
      this.#used[placed.index]!++
      entry.track = this.#trackOf(entry, series, placed)
      try {
        if (soft) entry.track.loadSoft(new StateReader(soft))
      } catch (error) {
        if (!(error instanceof StateProblem)) throw error
        // Learned under another rule, or damaged: it learns anew.
        entry.track = this.#trackOf(entry, series, placed)
      }
    }
    try {
      const listener = aggregateReadings(series, this.#table, this.#verdicts)
      const dress = dresserOf(series, this.#table)
      if (hard) this.#resuming.push({ entry, state: readHardState(hard, series, dress, listener) })
      else if (!entry.track) this.#touch(entry)
    } catch (error) {
      if (!(error instanceof StateProblem)) throw error
      this.#unreadable++
      this.#touch(entry)
    }
  }

  #seriesOf(name: Uint8Array): Series | undefined {
    try {
      const [device, metric, unit, labels] = JSON.parse(decoder.decode(name))
      return this.#table.intern(device, metric, {
        unit: unit ?? undefined,
        labels: Object.fromEntries(labels),
      })
    } catch {
      return undefined
    }
  }
}

function newEntry(key: string, id: number): Entry {
  const stored = { name: false, hard: false, soft: false }
  return { key, id, track: undefined, touched: false, learned: false, stored }
}

/** A series' name: what two series of equal content have in common. */
function keyOf({ device, metric, unit, labels }: Series): string {
  return JSON.stringify([device, metric, unit ?? null, Object.entries(labels)])
}

const encoder = new TextEncoder()
const decoder = new TextDecoder()
