import { decodeEntry, unseal } from '../../agent/outbox/entry.ts'
import type { StoredIncarnation } from '../../agent/outbox/incarnation.ts'
import { parseEntryKey, parseIncarnationKey } from '../../agent/outbox/key.ts'
import { FolderView } from '../../collector/log/embedded/folder-view.ts'
import type { StoredBatch } from '../../collector/log/engine.ts'
import {
  decodeBatch,
  decodeItem,
  type GapReason,
  type Item,
  inflate,
  itemCount,
  readingsOf,
} from '../../shared/batch.ts'
import { imbalance } from '../../shared/ledger.ts'
import type { Clock, Disk, StoreChange } from '../../shared/ports.ts'
import { type Lane, type Reading, SeriesTable, streams } from '../../shared/reading.ts'
import type { Accepted, Broker } from './broker.ts'
import type { SimulatedCollector } from './collector.ts'
import type { Gateway } from './gateway.ts'
import { Reconstruction } from './reconstruction.ts'

export interface Violation {
  /** Which promise is broken; two violations of one promise are one finding. */
  promise: 'P1' | 'P2' | 'P3' | 'P4' | 'P5' | 'P6' | 'P7' | 'P8' | 'P10' | 'alarm'
  text: string
}

/**
 * What faults have been made that excuse something, and nothing more than what is written here. Whatever a
 * message may be repeated for is counted with the message itself (`Accepted.repeats`).
 */
export interface Excuses {
  /** A gateway's image was put back, cloned or forked, so there is no one line of incarnations. */
  severalLines: boolean
  /** Two processes may number under one incarnation. */
  forked: boolean
  /** LevelDB has lost records: gaps `lost_corrupt` are right, and the ledger says "at least". */
  storeDamaged: boolean
  /** A collector holds less than it has acknowledged: gaps `released` are right. */
  collectorForgot: boolean
  /**
   * How many bits of the collector's log are flipped: frames may be missing where the reader reports damage.
   * Two may hide each other: a segment's header says where its first frame should be.
   */
  logFlips: number
  /** The outbox is small: gaps `evicted` and `thinned` are right. */
  evicts: boolean
  /** What stood in a gateway's store, undelivered, when an older image of it was put back: places. */
  takenAway: Set<string>
  /** What collectors hold to which the uplink no longer leads, and the places of gaps there: it is delivered all the same. */
  elsewhere: Set<string>
  /**
   * What a collector held that went back to an older image. It is declared when its lane is next spoken of;
   * of several agents one may have nothing to say, and one that is damaged may not know of it.
   */
  rolledBack: Set<string>
  /**
   * Messages, by number, from when an agent's image was taken to when it was put back: what was left out in
   * between rested on readings that went with the image. From, to.
   */
  rolledBackPoints: [number, number][]
}

/** One batch in the log, decoded. */
interface Stored {
  batch: StoredBatch
  /** Its header's, which the frame does not keep. */
  predecessorLast: Record<Lane, number> | undefined
  items: Item[]
}

/** Sequences of one lane of one incarnation, as the log has them. */
interface Line {
  last: number
  /** By sequence; a gap's sequences map to its reason. */
  present: Map<number, string>
  gaps: { first: number; last: number; reason: GapReason }[]
}

/** Knows the truth, since it sees both ends, and compares. */
export class Oracle {
  readonly violations: Violation[] = []
  readonly #broker: Broker
  readonly #excuses: Excuses
  readonly #error: number
  readonly #maxStored: number
  readonly #table = new SeriesTable()
  /** What every sequence ever stood for, by incarnation, lane and sequence. */
  readonly #assigned = new Map<string, string>()
  /** Where each content was numbered. */
  readonly #places = new Map<string, string[]>()
  /** What stands in a store, or has stood there. */
  readonly #decided = new Set<string>()
  /** Places that have stood for two contents. */
  readonly #disputed = new Set<string>()
  /** Places by who has numbered them, and those whose incarnation that one has closed since. */
  readonly #numberedBy = new Map<Gateway, Set<string>>()
  readonly #closed = new Set<string>()
  /** Incarnations' names by gateway and ordinal. */
  readonly #names = new Map<Gateway, Map<number, string>>()
  readonly #decoded = new Map<string, Stored>()
  /** Every gap that was written, by incarnation and lane, and how many messages there were by then. */
  readonly #gaps = new Map<string, { first: number; last: number; number: number }[]>()

  /**
   * @param error how far a reading that the filter leaves out may be from what stands in for it
   * @param maxStored bytes that an outbox may hold at any moment
   */
  constructor(
    broker: Broker,
    excuses: Excuses,
    { error, maxStored }: { error: number; maxStored: number },
  ) {
    this.#broker = broker
    this.#error = error
    this.#maxStored = maxStored
    this.#excuses = excuses
  }

  fail(promise: Violation['promise'], text: string): void {
    this.violations.push({ promise, text })
  }

  /** A gateway asks its store for this write; to be called back once it is there. */
  written(gateway: Gateway, changes: readonly StoreChange[]): () => void {
    let names = this.#names.get(gateway)
    if (!names) {
      names = new Map()
      this.#names.set(gateway, names)
    }
    for (const { key, value } of changes) {
      if (!value) continue
      const ordinal = parseIncarnationKey(key)
      if (ordinal !== undefined) {
        const stored = unseal<StoredIncarnation>(key, value)
        if (stored) names.set(ordinal, stored.id)
      }
    }
    const numbered: string[] = []
    for (const { key, value } of changes) {
      const place = value && parseEntryKey(key)
      const entry = place && decodeEntry(key, value)
      if (!place || !entry) continue
      const name = this.#nameOf(gateway, place.ordinal)
      if (entry.kind === 'gap') {
        this.#notesGap(`${name}/${place.lane}`, place.first, entry.count)
        continue
      }
      const contents = contentsOf(decodeItem(entry.item, this.#table))
      numbered.push(...contents)
      let sequence = place.first
      for (const content of contents) {
        const at = `${name}/${place.lane}/${sequence++}`
        this.#assign(at, content)
        if (this.#excuses.forked) this.#numbers(gateway, at)
      }
    }
    return () => {
      for (const content of numbered) this.#decided.add(content)
    }
  }

  #notesGap(line: string, first: number, count: number): void {
    const gap = { first, last: first + count - 1, number: this.#broker.record.length }
    const gaps = this.#gaps.get(line)
    if (gaps) gaps.push(gap)
    else this.#gaps.set(line, [gap])
  }

  #numbers(gateway: Gateway, place: string): void {
    const places = this.#numberedBy.get(gateway)
    if (places) places.add(place)
    else this.#numberedBy.set(gateway, new Set([place]))
  }

  /** A new machine begins with what another one's store holds. */
  copied(from: Gateway, to: Gateway): void {
    this.#names.set(to, new Map(this.#names.get(from)))
  }

  #assign(place: string, content: string): void {
    const before = this.#assigned.get(place)
    if (before === content) return
    if (before !== undefined) {
      this.#disputed.add(place)
      if (!this.#excuses.forked)
        this.fail('P2', `${place} stood for ${before} and now stands for ${content}`)
    }
    this.#assigned.set(place, content)
    const places = this.#places.get(content)
    if (places) places.push(place)
    else this.#places.set(content, [place])
  }

  /** P1, as it is worded: the broker has read a PUBACK, so what became of the message is in a store. */
  acknowledged({ point, contents }: Accepted): void {
    if (point) return
    const missing = contents.find((content) => !this.#decided.has(content))
    if (missing !== undefined)
      this.fail('P1', `${missing} is acknowledged, and nothing of it is stored`)
  }

  /** What agents have taken and not numbered: a reduction holds it, or leaves it out. */
  undecided(): Accepted[] {
    return this.#broker.record.filter(
      ({ point, sentTo, contents }) => point && sentTo.size > 0 && !this.#decided.has(contents[0]!),
    )
  }

  /** Something of it has been numbered in more than one place. */
  isNumberedAnew({ contents }: Accepted): boolean {
    return contents.some((content) => (this.#places.get(content)?.length ?? 0) > 1)
  }

  /** The places of what waits in a gateway's store. */
  undelivered(gateway: Gateway): Set<string> {
    const places = new Set<string>()
    for (const [key, value] of gateway.store.image()) {
      const bytes = Buffer.from(key, 'latin1')
      const place = parseEntryKey(bytes)
      const entry = place && decodeEntry(bytes, value)
      if (!entry) continue
      for (let i = 0; i < entry.count; i++)
        places.add(`${this.#nameOf(gateway, place.ordinal)}/${place.lane}/${place.first + i}`)
    }
    return places
  }

  #nameOf(gateway: Gateway, ordinal: number): string {
    return this.#names.get(gateway)?.get(ordinal) ?? `${gateway.machine.name} ${ordinal}`
  }

  /** From here on the gateway numbers under another incarnation than before. */
  reopened(gateway: Gateway): void {
    if (!this.#excuses.forked) return
    for (const place of this.#numberedBy.get(gateway) ?? []) this.#closed.add(place)
  }

  /** Adds what a collector's disk holds now to a set: contents, and the places of what is declared missing. */
  async remember(disk: Disk, clock: Clock, held: Set<string>): Promise<void> {
    for (const { batch, items } of (await this.#read(disk, clock)).batches) {
      let sequence = batch.first
      for (const item of items) {
        for (const content of contentsOf(item)) held.add(content)
        const end = sequence + itemCount(item)
        if (item.kind === 'gap')
          for (let at = sequence; at < end; at++)
            held.add(`${hex(batch.incarnation)}/${batch.lane}/${at}`)
        sequence = end
      }
    }
  }

  /** At any moment. */
  watch(gateways: readonly Gateway[]): void {
    for (const gateway of gateways) {
      const { status } = gateway
      if (!status) continue
      const off = imbalance(status.ledger)
      if (off !== 0)
        this.fail('P5', `${gateway.machine.name}: the ledger is out of balance by ${off}`)
      if (gateway.timers > 64)
        this.fail('P6', `${gateway.machine.name} has set ${gateway.timers} timers`)
      const stored = Object.values(status.lanes).reduce((sum, { bytes }) => sum + bytes, 0)
      if (stored > this.#maxStored)
        this.fail('P6', `${gateway.machine.name} stores ${stored} bytes`)
      if (gateway.requests > 2)
        this.fail('P6', `${gateway.machine.name} has ${gateway.requests} requests open`)
    }
  }

  /** At a quiescent point: everything is delivered, so everything must be where it belongs. */
  async check(
    collector: SimulatedCollector,
    gateways: readonly Gateway[],
    clock: Clock,
  ): Promise<void> {
    const { batches, damaged } = await this.#read(collector.disk.view(), clock)
    const { logFlips } = this.#excuses
    if (damaged && logFlips === 0) this.fail('P4', 'the log reports damage that nobody has done')
    // In the group written last a flipped bit is a torn tail, to whoever reads it.
    const lines = this.#follow(batches, damaged || logFlips > 0)
    const counts = this.#count(batches)
    this.#checkDelivery(counts, lines)
    this.#checkReductions(counts, batches)
    if (!this.#excuses.severalLines && !this.#broker.kind.reorders) this.#checkOrder(batches)
    this.watch(gateways)
    this.#checkLedger(gateways, batches)
    this.#checkAlarms(collector, gateways)
  }

  async #read(disk: Disk, clock: Clock): Promise<{ batches: Stored[]; damaged: boolean }> {
    const view = await FolderView.open(disk, clock)
    const found = new Map<number, Stored>()
    let damaged = false
    for (const stream of streams)
      for await (const item of view?.read({ stream }) ?? []) {
        if (item.type === 'damage') damaged = true
        else {
          // The first offsets only ever grow, one of them with each batch: their sum is the log's order.
          const place = Object.values(item.feeds).reduce((sum, { first }) => sum + first, 0)
          if (!found.has(place)) found.set(place, this.#decode(item))
        }
      }
    const batches = [...found].sort(([a], [b]) => a - b).map(([, stored]) => stored)
    return { batches, damaged }
  }

  /** Decoded once: what is there already is compared byte by byte. */
  #decode(batch: StoredBatch): Stored {
    const key = `${hex(batch.incarnation)}/${batch.lane}/${batch.first}/${batch.last}`
    const known = this.#decoded.get(key)
    if (known && Buffer.compare(known.batch.body, batch.body) === 0) return { ...known, batch }
    const { header, items } = decodeBatch(
      inflate(batch.body, batch.encoding, 8 * 2 ** 20),
      this.#table,
    )
    const stored = { batch, predecessorLast: header.predecessor?.last, items }
    this.#decoded.set(key, stored)
    return stored
  }

  /** P2 and P4: sequences follow one another without repeat or hole. */
  #follow(batches: readonly Stored[], damaged: boolean): Map<string, Line> {
    const lines = new Map<string, Line>()
    for (const { batch, predecessorLast, items } of batches) {
      const { incarnation, lane, first, last, predecessor } = batch
      const name = `${hex(incarnation)}/${lane}`
      let line = lines.get(name)
      if (!line) {
        line = { last: 0, present: new Map(), gaps: [] }
        lines.set(name, line)
      }
      if (first <= line.last)
        this.fail('P2', `${name}: ${first} to ${last} follow ${line.last} in the log`)
      if (first > line.last + 1 && !damaged)
        this.fail('P4', `${name}: ${line.last + 1} to ${first - 1} are missing before ${first}`)
      if (predecessor && predecessorLast && first === 1 && !damaged) {
        const held = lines.get(`${hex(predecessor)}/${lane}`)?.last ?? 0
        if (held < predecessorLast[lane])
          this.fail(
            'P4',
            `${name} begins although of its predecessor ${held + 1} to ${predecessorLast[lane]} are missing`,
          )
      }
      let sequence = first
      for (const item of items) {
        if (item.kind === 'gap') {
          this.#checkReason(name, item.reason)
          const end = sequence + item.count - 1
          line.gaps.push({ first: sequence, last: end, reason: item.reason })
          sequence = end + 1
        } else for (const content of contentsOf(item)) line.present.set(sequence++, content)
      }
      if (sequence - 1 !== last)
        this.fail('P4', `${name}: a batch of ${first} to ${last} holds up to ${sequence - 1}`)
      line.last = last
    }
    return lines
  }

  #checkReason(name: string, reason: GapReason): void {
    const { evicts, storeDamaged, collectorForgot } = this.#excuses
    const isExcused =
      ((reason === 'evicted' || reason === 'thinned') && evicts) ||
      (reason === 'lost_corrupt' && storeDamaged) ||
      (reason === 'released' && (collectorForgot || storeDamaged))
    if (!isExcused)
      this.fail('P1', `${name}: a gap says ${reason}, and nothing has happened to cause it`)
  }

  #count(batches: readonly Stored[]): Map<string, number> {
    const counts = new Map<string, number>()
    for (const { items } of batches)
      for (const item of items)
        for (const content of contentsOf(item)) counts.set(content, (counts.get(content) ?? 0) + 1)
    return counts
  }

  /** P1 and P2, by content: what was acknowledged is there or declared, and nothing is there too often. */
  #checkDelivery(counts: ReadonlyMap<string, number>, lines: ReadonlyMap<string, Line>): void {
    const due = new Map<string, { acknowledged: number; allowed: number }>()
    for (const { contents, acknowledged, repeats, point } of this.#broker.record)
      for (const content of contents) {
        const sum = due.get(content) ?? { acknowledged: 0, allowed: 0 }
        sum.acknowledged += acknowledged && !point ? 1 : 0
        sum.allowed += 1 + repeats
        due.set(content, sum)
      }
    for (const [content, { acknowledged, allowed }] of due) {
      const count = counts.get(content) ?? 0
      // What a snapshot held, each of those resumed from it may send; so may one that has lost its names.
      if (count > allowed && !this.#excuses.forked && !this.#excuses.storeDamaged)
        this.fail('P2', `${content} is in the log ${count} times`)
      if (count >= acknowledged || this.#isExcused(content)) continue
      const missing = acknowledged - count
      const declared = (this.#places.get(content) ?? []).filter(
        (place) => this.#isDeclared(place, lines) || this.#isLost(place),
      ).length
      if (declared < missing)
        this.fail(
          'P1',
          `${content} was acknowledged and is nowhere; numbered as ${this.#places.get(content) ?? 'nothing'}`,
        )
    }
    for (const content of counts.keys())
      if (!due.has(content) && !content.startsWith(own))
        this.fail('P2', `${content} is in the log, and nobody sent it`)
  }

  /** P10, which stands for P1 where a reduction may leave readings out. */
  #checkReductions(counts: ReadonlyMap<string, number>, batches: readonly Stored[]): void {
    const { storeDamaged, collectorForgot, severalLines, forked, rolledBackPoints, evicts } =
      this.#excuses
    if (storeDamaged || collectorForgot || forked) return
    // The bound holds between neighbours in the order of arrival, which is not that of their times here.
    if (this.#broker.kind.reorders) return
    const bulk = batches.filter(({ batch }) => batch.lane === 'bulk')
    const lines = severalLines ? [bulk, ...chainsOf(bulk)] : [bulk]
    const items = lines.map((line) => line.flatMap((stored) => stored.items))
    const lostBelow = this.#lossesOf(bulk)
    const reconstruction = new Reconstruction(items, {
      metric: 'level',
      error: this.#error,
      mayBeThinned: evicts,
      lostBelow: (gap) => lostBelow.get(gap)!,
    })
    for (const { number, point, contents, acknowledged } of this.#broker.record) {
      if (!point || !acknowledged || counts.has(contents[0]!)) continue
      if (rolledBackPoints.some(([from, to]) => from <= number && number < to)) continue
      // It was not left out, but numbered, and lost as far as that is excused.
      if (this.#places.get(contents[0]!)?.some((place) => this.#isLost(place))) continue
      if (!reconstruction.explains(point, number))
        this.fail('P10', `${contents[0]} is left out, and nothing stands in for it`)
    }
  }

  /** By gap: the number of messages that had been published when an agent last wrote it. */
  #lossesOf(batches: readonly Stored[]): Map<Item, number> {
    const losses = new Map<Item, number>()
    for (const { batch, items } of batches) {
      const written = this.#gaps.get(`${hex(batch.incarnation)}/${batch.lane}`) ?? []
      let first = batch.first
      for (const item of items) {
        const last = first + itemCount(item) - 1
        const own = written.filter((gap) => gap.first <= last && first <= gap.last)
        if (item.kind === 'gap') losses.set(item, Math.max(0, ...own.map(({ number }) => number)))
        first = last + 1
      }
    }
    return losses
  }

  #isExcused(content: string): boolean {
    const { elsewhere, rolledBack, severalLines, storeDamaged } = this.#excuses
    return elsewhere.has(content) || ((severalLines || storeDamaged) && rolledBack.has(content))
  }

  /**
   * It went with an image that was put back. Or it was numbered by one of two twins under their common name
   * and that one started anew before it was delivered: of an incarnation that is closed, everything that the
   * collector holds is taken for delivered, and the other twin was ahead.
   */
  #isLost(place: string): boolean {
    const { takenAway, elsewhere, storeDamaged, severalLines } = this.#excuses
    if (takenAway.has(place) || elsewhere.has(place)) return true
    // An older image has other gaps for what damage has taken since.
    if (storeDamaged && severalLines) return true
    // What was evicted and is numbered anew is a gap of other sequences than it stood for.
    if (this.#excuses.forked && this.#excuses.evicts) return true
    return this.#disputed.has(place) && this.#closed.has(place)
  }

  #isDeclared(place: string, lines: ReadonlyMap<string, Line>): boolean {
    const slash = place.lastIndexOf('/')
    const sequence = Number(place.slice(slash + 1))
    const line = lines.get(place.slice(0, slash))
    if (line?.gaps.some(({ first, last }) => first <= sequence && sequence <= last)) return true
    // Offsets that the reader reports as lost.
    return this.#excuses.logFlips > 0 && !line?.present.has(sequence)
  }

  /** P3: each device's messages in their order, incarnations in theirs. */
  #checkOrder(batches: readonly Stored[]): void {
    const orderOf = new Map<string, number>()
    const seen = new Set<string>()
    for (const { number, contents, point, repeats } of this.#broker.record)
      for (const content of contents) {
        if (!orderOf.has(content)) orderOf.set(content, number)
        // It may have been left out the first time.
        if (point && repeats > 0) seen.add(content)
      }
    const lastOf = new Map<string, number>()
    const closed = new Set<string>()
    for (const { batch, items } of batches) {
      const { lane, incarnation, predecessor } = batch
      // What a collector has forgotten is declared afterwards.
      if (closed.has(`${hex(incarnation)}/${lane}`) && !this.#excuses.collectorForgot)
        this.fail('P3', `${hex(incarnation)}/${lane} goes on behind its successor`)
      if (predecessor) closed.add(`${hex(predecessor)}/${lane}`)
      for (const item of items)
        for (const content of contentsOf(item)) {
          if (seen.has(content) || content.startsWith(own)) continue
          seen.add(content)
          const order = orderOf.get(content) ?? 0
          const device = `${lane} ${content.slice(0, content.indexOf('/'))}`
          if (order < (lastOf.get(device) ?? -1))
            this.fail('P3', `${content} stands behind what was sent after it`)
          lastOf.set(device, order)
        }
    }
  }

  /** P5 at rest: nothing is buffered, and what was forwarded is in the log. */
  #checkLedger(gateways: readonly Gateway[], batches: readonly Stored[]): void {
    const { severalLines, storeDamaged, collectorForgot, logFlips } = this.#excuses
    for (const { machine, status } of gateways)
      if (status && status.ledger.buffered !== 0)
        this.fail('P5', `${machine.name}: ${status.ledger.buffered} buffered, and nothing waits`)
    const only = gateways.length === 1 ? gateways[0] : undefined
    if (!only?.status || severalLines || storeDamaged || collectorForgot || logFlips > 0) return
    const { forwarded, quarantined, lostCorrupt, evicted } = only.status.ledger
    const sums = { readings: 0, records: 0, evicted: 0 }
    for (const { batch, items } of batches)
      for (const item of items) {
        sums.readings += readingsOf(item).length
        if (item.kind === 'readings') continue
        if (batch.lane === 'quarantine') sums.records += itemCount(item)
        else if (item.kind === 'gap' && batch.lane === 'bulk')
          // What is urgent here the agent says of itself.
          sums.evicted += item.count - readingsOf(item).length
      }
    // What is held already, and no answer said so, may be evicted: then it counts as that.
    const unaware = sums.readings - forwarded
    if (unaware !== 0 && (!this.#excuses.evicts || unaware !== evicted - sums.evicted))
      this.fail('P5', `${forwarded} forwarded, and ${sums.readings} are in the log`)
    if (quarantined !== sums.records)
      this.fail('P5', `${quarantined} quarantined, and ${sums.records} are in the log`)
    if (evicted - unaware !== sums.evicted)
      this.fail('P5', `${evicted} evicted, and ${sums.evicted} are declared`)
    if (lostCorrupt !== 0) this.fail('P5', `${lostCorrupt} lost, and nothing is damaged`)
  }

  #checkAlarms(collector: SimulatedCollector, gateways: readonly Gateway[]): void {
    const { severalLines, forked, storeDamaged, collectorForgot } = this.#excuses
    const { clone, restored, unchained } = collector.alarms
    if (!severalLines && !storeDamaged && !collectorForgot && clone + restored + unchained > 0)
      this.fail('alarm', `${JSON.stringify(collector.alarms)}, and there is one agent`)
    // Where damage hides what was delivered, and the collector has forgotten a part of it, hashes differ.
    if (forked || (storeDamaged && collectorForgot)) return
    for (const { machine, status } of gateways)
      if ((status?.uplink.forks ?? 0) > 0)
        this.fail('alarm', `${machine.name} takes its history for forked, and it is not`)
  }
}

/** Each incarnation alone, and behind those that it goes back to, oldest first. */
function chainsOf(batches: readonly Stored[]): Stored[][] {
  const own = Map.groupBy(batches, ({ batch }) => hex(batch.incarnation))
  const before = new Map<string, string>()
  for (const { batch } of batches)
    if (batch.predecessor) before.set(hex(batch.incarnation), hex(batch.predecessor))
  const chains = [...new Set([...own.keys(), ...before.keys()])].map((last) => {
    const line: Stored[] = []
    for (let name: string | undefined = last; name !== undefined; name = before.get(name))
      line.unshift(...(own.get(name) ?? []))
    return line
  })
  return [...chains, ...own.values()]
}

/** What an item stands for, one text a sequence; none for a gap. */
export function contentsOf(item: Item): string[] {
  if (item.kind !== 'records') return readingsOf(item).map(contentOf)
  return item.records.map((record) =>
    record.type === 'quarantine'
      ? quarantineContent(record.topic, record.payload)
      : own + JSON.stringify(record),
  )
}

/** Begins what an agent says of itself, which nobody published. */
const own = '@'

export function contentOf({ series, value }: Pick<Reading, 'series' | 'value'>): string {
  return `${series.device}/${series.metric}=${value}`
}

export function quarantineContent(topic: string, payload: Uint8Array): string {
  return `${topic.split('/')[1]}/!${new TextDecoder().decode(payload)}`
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex')
}

export type { Accepted }
