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
import { type HardState, heldBy, readHardState, undecidedSince } from './hard-state.ts'
import { Journal, type Member } from './journal.ts'
import { Rule } from './rule.ts'
import type { FilterConfig } from './schema.ts'
import { StateProblem, StateReader, StateWriter } from './state-bytes.ts'
import { dresserOf, letGo, Track } from './track.ts'
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
/** Readings whose series are fetched from memory together: enough to overlap, few enough to stay in the cache. */
export const warmedAtOnce = 16
/** No rule matches the series. */
const unmatched = Symbol('unmatched')
/** Its rule has as many series as it may. */
const beyond = Symbol('beyond')

/** A series that has state. */
interface Entry extends Member {
  readonly key: string
  /** Undefined when its state is from before, and no rule wants it any more. */
  track: Track | undefined
  /** Its hard state may differ from what is saved. */
  touched: boolean
  /** Its soft state does. */
  learned: boolean
  /** What of it the store has, hard state apart. */
  name: boolean
  soft: boolean
}

type Found = Entry | typeof unmatched | typeof beyond

/**
 * The filter of a configuration: finds each series its rule, once, and keeps a track of it.
 *
 * State, under keys of its own space: `n<id>` is a series' name as JSON, `s<id>` its soft state, and
 * `j<number>` the journal of hard state.
 */
class RuleFilter implements Filter {
  readonly #rules: readonly Rule[]
  readonly #verdicts: Verdicts
  readonly #table = new SeriesTable()
  readonly #entries = new Map<string, Entry>()
  readonly #shortcuts = new BoundedMap<Series, Found>(shortcuts)
  readonly #devices = new Map<string, Device>()
  readonly #writer = new StateWriter()
  readonly #journal = new Journal<Entry>(this.#writer, ({ track }) => track?.save(this.#writer))
  #touched: Entry[] = []
  /** Whose readings come next. */
  readonly #warmed: Found[] = []
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
    this.#rules = rules.map((rule, index) => new Rule(rule, index))
    this.#verdicts = new Verdicts(observer)
    this.#load(saved)
  }

  judge(readings: readonly AdmittedReading[]): Judgement {
    for (let from = 0; from < readings.length; from += warmedAtOnce) {
      const to = Math.min(from + warmedAtOnce, readings.length)
      const entries = this.#warmed
      for (let i = from; i < to; i++) {
        const entry = this.#entryOf(readings[i]!.series)
        if (typeof entry !== 'symbol') entry.track!.warm()
        entries[i - from] = entry
      }
      for (let i = from; i < to; i++) this.#judge(readings[i]!, entries[i - from]!)
    }
    return this.#finish()
  }

  #judge(reading: AdmittedReading, entry: Found): void {
    this.#begin(reading.arrival)
    if (typeof entry === 'symbol') {
      if (entry === beyond) this.#beyond++
      this.#verdicts.admit(reading)
      return
    }
    entry.track!.take(reading)
    if (entry.track!.unsaved) this.#touch(entry)
    entry.learned = true
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
      entry.track.saveSoft(this.#writer)
      const value = this.#writer.take()
      this.#name(entry, changes)
      changes.push({ space: 'filter', key: `s${entry.id}`, value })
      entry.soft = true
      bytes += value.length
    }
    return changes
  }

  get held(): number {
    let sum = 0
    for (const { track } of this.#entries.values()) sum += track?.held ?? 0
    for (const { state } of this.#resuming) sum += heldBy(state)
    return sum
  }

  get undecidedMs(): number {
    let oldest = Infinity
    for (const { track } of this.#entries.values())
      if (track) oldest = Math.min(oldest, track.undecidedMs)
    for (const { state } of this.#resuming) oldest = Math.min(oldest, undecidedSince(state))
    return oldest
  }

  get counts(): FilterCounts {
    return {
      series: this.#entries.size,
      beyondMaxSeries: this.#beyond,
      late: this.#verdicts.late,
      unreadable: this.#unreadable,
    }
  }

  #entryOf(series: Series): Found {
    const known = this.#shortcuts.get(series)
    if (known !== undefined) return known
    const key = keyOf(series)
    const entry = this.#entries.get(key)
    const found = entry?.track ? entry : this.#enter(key, series)
    this.#shortcuts.set(series, found)
    return found
  }

  /** Makes an entry for a series that has none, where a rule has room for it. */
  #enter(key: string, series: Series): Found {
    const rule = this.#ruleOf(series)
    if (!rule) return unmatched
    if (!rule.hasRoom) return beyond
    rule.tracks++
    const entry = newEntry(key, ++this.#lastId)
    entry.track = this.#trackOf(entry, series, rule)
    this.#entries.set(key, entry)
    return entry
  }

  #ruleOf(series: Series): Rule | undefined {
    return this.#rules.find((rule) => rule.matches(series))
  }

  #trackOf(entry: Entry, series: Series, rule: Rule): Track {
    return new Track(series, rule, {
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
      if (entry.track ? entry.track.load(state) : letGo(state, this.#verdicts)) this.#touch(entry)
      else if (!entry.track) this.#touch(entry)
    }
  }

  #finish(): Judgement {
    const changes: StateChange[] = []
    for (const key of this.#stray) changes.push({ space: 'filter', key, value: undefined })
    this.#stray = []
    this.#journal.append(this.#touched, changes)
    for (const entry of this.#touched) {
      entry.touched = false
      if (entry.record) this.#name(entry, changes)
      if (entry.track) continue
      if (entry.soft) changes.push({ space: 'filter', key: `s${entry.id}`, value: undefined })
      changes.push({ space: 'filter', key: `n${entry.id}`, value: undefined })
      this.#entries.delete(entry.key)
    }
    this.#touched = []
    return this.#verdicts.take(changes)
  }

  /** Sees to it that the store knows whose state it is. */
  #name(entry: Entry, changes: StateChange[]): void {
    if (entry.name) return
    entry.name = true
    changes.push({ space: 'filter', key: `n${entry.id}`, value: encoder.encode(entry.key) })
  }

  #load(saved: Iterable<{ key: string; value: Uint8Array }>): void {
    const names = new Map<number, Uint8Array>()
    const soft = new Map<number, Uint8Array>()
    const records = new Map<number, Uint8Array>()
    for (const { key, value } of saved) {
      const number = Number(key.slice(1))
      const kind = { n: names, s: soft, j: records }[key[0]!]
      if (kind && Number.isSafeInteger(number) && number > 0) kind.set(number, value)
      else this.#stray.push(key)
    }
    const { states, stray } = this.#journal.restore(records)
    this.#stray.push(...stray)
    // An id is not used again as long as the journal may tell of it.
    for (const id of [...names.keys(), ...soft.keys(), ...states.keys()])
      this.#lastId = Math.max(this.#lastId, id)
    for (const [id, value] of names) {
      const series = this.#seriesOf(value)
      if (series) this.#restore(id, series, states.get(id), soft.get(id))
      else this.#stray.push(`n${id}`)
      if (series) soft.delete(id)
    }
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
    const rule = this.#ruleOf(series)
    const entry = newEntry(key, id)
    entry.name = true
    entry.soft = soft !== undefined
    if (hard) this.#journal.join(entry, hard)
    this.#entries.set(key, entry)
    if (rule?.hasRoom) {
      rule.tracks++
      entry.track = this.#trackOf(entry, series, rule)
      try {
        if (soft) entry.track.loadSoft(new StateReader(soft))
      } catch (error) {
        if (!(error instanceof StateProblem)) throw error
        // Learned under another rule, or damaged: it learns anew.
        entry.track = this.#trackOf(entry, series, rule)
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
  return {
    key,
    id,
    track: undefined,
    touched: false,
    learned: false,
    name: false,
    soft: false,
    record: undefined,
    size: 0,
  }
}

/** A series' name: what two series of equal content have in common. */
function keyOf({ device, metric, unit, labels }: Series): string {
  return JSON.stringify([device, metric, unit ?? null, Object.entries(labels)])
}

const encoder = new TextEncoder()
const decoder = new TextDecoder()
