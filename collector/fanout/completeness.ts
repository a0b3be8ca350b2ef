import { type Batch, decodeBatch, type Gap, inflate } from '../../shared/batch.ts'
import { SeriesTable } from '../../shared/reading.ts'
import {
  type LogItem,
  maxInflatedBytes,
  type ReadRequest,
  type Statistics,
  type StoredBatch,
} from '../log/engine.ts'
import type { LogReader } from './fanout.ts'

/** A log that also says where it begins. */
export interface KnownLog extends LogReader {
  statistics(partition?: number): Promise<Statistics>
}

export interface CompletenessQuestion {
  device: string
  /** fromMs ≤ a reading's own time < toMs */
  fromMs: number
  toMs: number
  /** Only as far as this agent knows the device; otherwise all that have sent it around that time. */
  agent?: string | undefined
  signal?: AbortSignal | undefined
}

/**
 * - `complete`: every reading of the time that its gateways had received by `asOfMs` is in the log, but for
 *   what their filters left out by their rules.
 * - `incomplete`: something is known to be missing, and `missing` says what.
 * - `not_yet`: nothing is known to be missing, and `waiting` says what has to come before more can be said.
 * - `unknown`: nobody has sent the device in this time or in the day before.
 */
export interface Completeness {
  state: 'complete' | 'incomplete' | 'not_yet' | 'unknown'
  /** Gateway's wall time at which what it says was true; of several the earliest. Only when complete. */
  asOfMs: number | undefined
  /** Of the device, in the log, in this time; alerts and quarantined messages are not among them. */
  readings: number
  agents: string[]
  missing: Missing[]
  waiting: Waiting[]
}

/** Something that will not come, or is not there any more. */
export interface Missing {
  /** Undefined where the log itself has lost it. */
  agent: string | undefined
  /**
   * Of a gap; or `retention`: it may have been removed since; `damaged`: the log's disk has lost it;
   * `wiped`: the gateway came back without its past; `restored`: with an older one.
   */
  reason: Gap['reason'] | 'retention' | 'damaged' | 'wiped' | 'restored'
  /** Readings of the device; undefined where it is not known how many, or whether there were any. */
  count: number | undefined
  /** The count is a lower bound. */
  atLeast: boolean
  metrics: string[]
  /** Their time, as far as it is known. */
  fromMs: number | undefined
  toMs: number | undefined
}

export interface Waiting {
  agent: string
  /**
   * `offline`: it has said nothing since the time ended; `unsent`: it holds readings that it received before
   * the time ended; `untold`: it does not say what it holds.
   */
  reason: 'offline' | 'unsent' | 'untold'
  /** When the collector heard its last report, collector's wall time; undefined when it never did. */
  heardMs: number | undefined
  /** What it had received before this was settled then, gateway's wall time. */
  settledMs: number | undefined
}

const hourMs = 3_600_000
const dayMs = 24 * hourMs
/** Where the last report of a silent agent is looked for, before the whole log is. */
const reportWindowsMs = [hourMs, dayMs, Infinity]
/** Rows that a gap has at most: with so many, others may have found no room. */
const fullGap = 1_000

/**
 * Whether the log has all of a device's readings of some time, judged by what agents have said of themselves:
 * sequences have no holes, gaps are declared, and a report says up to when everything received is settled.
 * Such a word stays true, so the earliest that covers the time decides.
 */
export async function completeness(
  log: KnownLog,
  question: CompletenessQuestion,
): Promise<Completeness> {
  let found = await findDevice(log, question, hourMs)
  if (found.agents.size === 0) found = await findDevice(log, question, dayMs)
  const missing: Missing[] = [...found.damage]
  const waiting: Waiting[] = []
  let asOfMs = Infinity
  for (const [agent, partitions] of found.agents) {
    const { covered, last } = await findReport(log, question, agent, partitions)
    missing.push(...(await findBreaks(log, question, agent, partitions, covered)))
    missing.push(...(await findGaps(log, question, agent, partitions, covered)))
    if (covered) asOfMs = Math.min(asOfMs, covered.settledMs!)
    else waiting.push(whyWaiting(agent, last, question.toMs))
  }
  const agents = [...found.agents.keys()]
  const state =
    agents.length === 0
      ? 'unknown'
      : missing.length > 0
        ? 'incomplete'
        : waiting.length > 0
          ? 'not_yet'
          : 'complete'
  return {
    state,
    asOfMs: state === 'complete' ? asOfMs : undefined,
    readings: found.readings,
    agents,
    missing,
    waiting,
  }
}

interface Found {
  /** Who has sent the device, with the partitions that they are in. */
  agents: Map<string, Set<number>>
  readings: number
  damage: Missing[]
}

/** @param lookBackMs how far before the time somebody counts who has sent the device */
async function findDevice(
  log: KnownLog,
  question: CompletenessQuestion,
  lookBackMs: number,
): Promise<Found> {
  const { device, fromMs, toMs, agent: only } = question
  const found: Found = { agents: new Map(), readings: 0, damage: [] }
  const name = Buffer.from(device)
  for (const partition of partitionsOf(log)) {
    let damaged = 0
    const request = { stream: 'readings', partition, fromMs: fromMs - lookBackMs, toMs } as const
    for await (const item of readGently(log, request, question)) {
      if (item.type === 'damage') {
        damaged += item.last - item.first + 1
        continue
      }
      // What is lost arrived before this, so it is of no later time.
      if (item.arrivedMs < fromMs) damaged = 0
      if (only !== undefined && item.agent !== only) continue
      if (only !== undefined) sees(found, item)
      const { feeds, agent } = item
      if (feeds.readings.toMs < fromMs && found.agents.get(agent)?.has(partition)) continue
      const body = inflate(item.body, item.encoding, maxInflatedBytes)
      // The device is in the batch's dictionary, as these very bytes, or it is not in the batch.
      if (!Buffer.from(body.buffer, body.byteOffset, body.length).includes(name)) continue
      const count = countReadings(decodeBatch(body, new SeriesTable()), question)
      if (!count.sent) continue
      sees(found, item)
      found.readings += count.inTime
    }
    if (damaged > 0) found.damage.push({ ...unknownMissing(undefined, 'damaged'), atLeast: false })
  }
  // Nothing of it in the log is no reason not to ask for what is declared.
  if (only !== undefined && !found.agents.has(only)) await findAgent(log, question, only, found)
  return found
}

/** An agent that is asked for by its name is heard, whatever it has sent and when. */
async function findAgent(
  log: KnownLog,
  question: CompletenessQuestion,
  agent: string,
  found: Found,
): Promise<void> {
  for (const partition of partitionsOf(log))
    for await (const item of readGently(log, { stream: 'ledger', partition }, question))
      if (item.type === 'batch' && item.agent === agent) {
        sees(found, item)
        break
      }
}

function sees({ agents }: Found, { agent, partition }: StoredBatch): void {
  const partitions = agents.get(agent) ?? new Set()
  agents.set(agent, partitions.add(partition))
}

function countReadings(
  { items }: Batch,
  { device, fromMs, toMs }: CompletenessQuestion,
): { sent: boolean; inTime: number } {
  let sent = false
  let inTime = 0
  for (const item of items) {
    const readings =
      item.kind === 'readings' ? item.readings : item.kind === 'gap' ? item.kept?.readings : []
    for (const { series, timeMs } of readings ?? []) {
      if (series.device !== device) continue
      sent = true
      if (timeMs >= fromMs && timeMs < toMs) inTime += 1
    }
  }
  return { sent, inTime }
}

interface Report {
  sentMs: number
  arrivedMs: number
  settledMs: number | undefined
}

/**
 * The agent's first report that covers the time, and the last one that it made up to there. One that was made
 * before the time ended cannot cover it.
 */
async function findReport(
  log: KnownLog,
  question: CompletenessQuestion,
  agent: string,
  partitions: Iterable<number>,
): Promise<{ covered: Report | undefined; last: Report | undefined }> {
  const { toMs } = question
  let last: Report | undefined
  for (const partition of partitions)
    for await (const item of readGently(
      log,
      { stream: 'ledger', partition, fromMs: toMs },
      question,
    )) {
      const report = item.type === 'batch' && item.agent === agent ? reportIn(item) : undefined
      if (!report) continue
      last = report
      const { settledMs = -Infinity, arrivedMs } = report
      // By both clocks: a gateway's may be ahead.
      if (settledMs >= toMs && arrivedMs >= toMs) return { covered: report, last }
    }
  for (const windowMs of reportWindowsMs) {
    if (last) break
    for (const partition of partitions) {
      const request = { stream: 'ledger', partition, fromMs: toMs - windowMs, toMs } as const
      let newest: StoredBatch | undefined
      for await (const item of readGently(log, request, question))
        if (item.type === 'batch' && item.agent === agent) newest = item
      last ??= newest && reportIn(newest)
    }
  }
  return { covered: undefined, last }
}

function reportIn({ body, encoding, arrivedMs }: StoredBatch): Report | undefined {
  const { header } = decodeBatch(inflate(body, encoding, maxInflatedBytes))
  const { ledger, sentMs } = header
  return ledger && { sentMs, arrivedMs, settledMs: ledger.settledMs }
}

function whyWaiting(agent: string, last: Report | undefined, toMs: number): Waiting {
  const reason =
    !last || last.sentMs < toMs ? 'offline' : last.settledMs === undefined ? 'untold' : 'unsent'
  return { agent, reason, heardMs: last?.arrivedMs, settledMs: last?.settledMs }
}

/**
 * What the log has of the agent's past does not hang together: its first part has been removed, or the gateway
 * went on without what it had. Whatever came behind the report that covers the time cannot concern it.
 */
async function findBreaks(
  log: KnownLog,
  question: CompletenessQuestion,
  agent: string,
  partitions: Iterable<number>,
  covered: Report | undefined,
): Promise<Missing[]> {
  const { fromMs, toMs } = question
  const untilMs = covered?.arrivedMs ?? Infinity
  const missing: Missing[] = []
  for (const partition of partitions) {
    const { first: firstOffset } = (await log.statistics(partition)).readings
    const first = await firstOf(log, question, agent, partition)
    // What was removed arrived before what is left, so it is of an earlier time.
    if (firstOffset > 0 && first && first.arrivedMs > fromMs && !isOrigin(first))
      missing.push({
        ...unknownMissing(agent, 'retention'),
        fromMs,
        toMs: Math.min(toMs, first.arrivedMs),
      })
    const known = new Set(first && [hex(first.incarnation)])
    const heirs = new Map<string, string>()
    const request = { stream: 'readings', partition, fromMs: fromMs - dayMs } as const
    for await (const item of readGently(log, request, question)) {
      if (item.type === 'damage' || item.agent !== agent) continue
      if (item.arrivedMs > untilMs) break
      const own = hex(item.incarnation)
      const isNew = !known.has(own)
      known.add(own)
      if (item.first > 1) continue
      const before = item.predecessor && hex(item.predecessor)
      const other = before && heirs.get(before)
      if (before) heirs.set(before, own)
      if (item.arrivedMs <= fromMs) continue
      const toMs = item.arrivedMs
      if (isNew && !before) missing.push({ ...unknownMissing(agent, 'wiped'), toMs })
      else if (other && other !== own) missing.push({ ...unknownMissing(agent, 'restored'), toMs })
    }
  }
  return missing
}

/** There was nothing before it. */
function isOrigin({ first, predecessor }: StoredBatch): boolean {
  return first === 1 && !predecessor
}

/** The first batch with readings that the log still has of an agent. */
async function firstOf(
  log: KnownLog,
  question: CompletenessQuestion,
  agent: string,
  partition: number,
): Promise<StoredBatch | undefined> {
  for await (const item of readGently(log, { stream: 'readings', partition }, question))
    if (item.type === 'batch' && item.agent === agent) return item
  return undefined
}

async function findGaps(
  log: KnownLog,
  question: CompletenessQuestion,
  agent: string,
  partitions: Iterable<number>,
  covered: Report | undefined,
): Promise<Missing[]> {
  const missing: Missing[] = []
  for (const partition of partitions) {
    // A gap whose time is not known counts as of its arrival, which is behind whatever it is about.
    const request = { stream: 'gaps', partition, fromMs: question.fromMs } as const
    for await (const item of readGently(log, request, question)) {
      if (item.type === 'damage' || item.agent !== agent || item.lane === 'quarantine') continue
      const isBehind = covered !== undefined && item.arrivedMs > covered.arrivedMs
      const { items } = decodeBatch(inflate(item.body, item.encoding, maxInflatedBytes))
      for (const gap of items) {
        const found = gap.kind === 'gap' ? concerning(gap, question, isBehind) : undefined
        if (found) missing.push({ agent, reason: (gap as Gap).reason, ...found })
      }
    }
  }
  return missing
}

/** @param isBehind it was declared when everything received by the end of the time was settled */
function concerning(
  gap: Gap,
  { device, fromMs, toMs }: CompletenessQuestion,
  isBehind: boolean,
): Omit<Missing, 'agent' | 'reason'> | undefined {
  const { series, atLeast, reason } = gap
  const isTimed = gap.fromMs !== undefined && gap.toMs !== undefined
  if (isTimed && (gap.fromMs! >= toMs || gap.toMs! < fromMs)) return undefined
  // What is released was once delivered, to a log that has lost it; all else was never sent.
  if (!isTimed && isBehind && reason !== 'released') return undefined
  const times = { fromMs: gap.fromMs, toMs: gap.toMs }
  const rows = series.filter((row) => row.device === device)
  const count = rows.reduce((sum, row) => sum + row.count, 0)
  if (count > 0) return { count, atLeast, metrics: rows.map(({ metric }) => metric), ...times }
  const mayConcern = series.length === 0 || series.length >= fullGap || atLeast
  return mayConcern ? { count: undefined, atLeast, metrics: [], ...times } : undefined
}

function unknownMissing(agent: string | undefined, reason: Missing['reason']): Missing {
  const times = { fromMs: undefined, toMs: undefined }
  return { agent, reason, count: undefined, atLeast: true, metrics: [], ...times }
}

/** Ends with an error when nobody waits any more, and lets everybody else go first now and then. */
async function* readGently(
  log: KnownLog,
  request: ReadRequest,
  { signal }: CompletenessQuestion,
): AsyncGenerator<LogItem> {
  let bytes = 0
  for await (const item of log.read({ ...request, signal })) {
    signal?.throwIfAborted()
    yield item
    if (item.type === 'batch') bytes += item.body.length
    if (bytes < breatheBytes) continue
    bytes = 0
    await new Promise((resolve) => setImmediate(resolve))
  }
}

const breatheBytes = 65_536

function partitionsOf({ partitions }: KnownLog): number[] {
  return [...Array(partitions).keys()]
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex')
}
