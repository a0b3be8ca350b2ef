import { dirname, join } from 'node:path'
import type { Command } from 'commander'
import { decodeItem, type Item, readingsOf } from '../shared/batch.ts'
import { UserError } from '../shared/failure.ts'
import { imbalance } from '../shared/ledger.ts'
import type { Store } from '../shared/ports.ts'
import { type Lane, lanes, qualityText, type Reading } from '../shared/reading.ts'
import { systemClock, systemRandom } from '../shared/system.ts'
import { formatTime } from '../shared/time-text.ts'
import { csvText, csvValue } from '../shared/value-text.ts'
import { decodeEntry } from './outbox/entry.ts'
import { OutboxFailure } from './outbox/failure.ts'
import { readMeta, refuseForeign } from './outbox/format.ts'
import { holdsStore, openHealed, openSound } from './outbox/heal.ts'
import { entryRange, parseEntryKey } from './outbox/key.ts'
import { recover } from './outbox/recovery.ts'
import { readingMembers } from './reading-line.ts'

interface Options {
  data: string
  json?: boolean
}

/** Adds `headgate outbox …`, for a stopped agent's store. Only `repair` changes anything of ours in it. */
export function registerOutbox(command: Command): void {
  const add = (
    name: string,
    about: string,
    work: (store: Store, options: Options) => Promise<void>,
  ) =>
    subcommand(command, name, about).action((options: Options) =>
      told(async () => {
        const folder = await outboxFolder(options.data)
        const found = await openSound(folder)
        if ('damage' in found) {
          if (name === 'verify') return tellDamage({ damage: [found.damage] }, options)
          throw new UserError(
            `${folder}: ${found.damage}: "headgate outbox repair --data ${options.data}" sets its files aside ` +
              'and keeps what is whole',
          )
        }
        const { store } = found
        try {
          if (!(await readMeta(store))) await refuseForeign(store)
          await work(store, options)
        } finally {
          await store.close()
        }
      }),
    )
  add('ls', 'what waits in each lane, and the ledger', list)
  add('verify', 'check every entry; exit code 1 when something is damaged', verify)
  add('cat', 'print what waits, in order of delivery', cat)
  add('export', 'print the readings that wait as CSV, or with --json as JSON lines', exportReadings)
  subcommand(
    command,
    'repair',
    'set damaged files aside, keep what is whole, declare the rest',
  ).action((options: Options) => told(() => repair(options)))
}

/** What the disk says is for a person to act on. */
async function told(work: () => Promise<void>): Promise<void> {
  try {
    await work()
  } catch (error) {
    throw error instanceof OutboxFailure ? new UserError(error.message, { cause: error }) : error
  }
}

function subcommand(command: Command, name: string, about: string): Command {
  return command
    .command(name)
    .description(about)
    .requiredOption('--data <dir>', "a stopped agent's data folder, or the folder of an `up`")
    .option('--json', 'print JSON')
    .addHelpText('after', `\nExample:\n  headgate outbox ${name} --data ./var/gw-001`)
}

/** @throws UserError when there is none */
export async function outboxFolder(data: string): Promise<string> {
  for (const folder of [join(data, 'outbox'), join(data, 'agent', 'outbox')])
    if (await holdsStore(folder)) return folder
  throw new UserError(
    `${data}: holds no outbox: name the agent's data folder (\`data\` in agent.yaml)`,
  )
}

/** What the agent does at its start, without the agent. */
async function repair({ data, json }: Options): Promise<void> {
  const folder = await outboxFolder(data)
  const stamp = new Date().toISOString().replaceAll(':', '-')
  const { store, report } = await openHealed(folder, join(dirname(folder), 'damaged'), stamp)
  try {
    if (!(await readMeta(store))) await refuseForeign(store)
    const { damage, repairs } = await recover(store, systemRandom, systemClock.wallMs())
    if (repairs.length > 0) await store.write(repairs, { sync: true })
    const lines = [...report, ...damage]
    if (json) print(JSON.stringify({ repaired: lines }))
    else for (const line of lines.length > 0 ? lines : ['nothing to repair']) print(line)
  } finally {
    await store.close()
  }
}

async function exportReadings(store: Store, { json }: Options): Promise<void> {
  if (!json) print('lane,sequence,device,metric,time,value,quality')
  for await (const row of rows(store)) {
    if (!('reading' in row)) continue
    if (json) print(jsonLine(row))
    else {
      const { series, timeMs, timeNanos, value, quality } = row.reading
      const names = `${csvText(series.device)},${csvText(series.metric)}`
      const content = `${formatTime(timeMs, timeNanos)},${csvValue(value)},${qualityText(quality)}`
      print(`${row.lane},${row.sequence},${names},${content}`)
    }
  }
}

async function list(store: Store, { json }: Options): Promise<void> {
  const { stock, totals, incarnations } = await recover(store, systemRandom, systemClock.wallMs())
  const inEntries = lanes.reduce((sum, lane) => sum + stock[lane].received, 0)
  const ledger = { ...totals.ledger, buffered: totals.ledger.buffered + inEntries }
  if (json) {
    print(
      JSON.stringify({
        lanes: stock,
        ledger,
        incarnations: incarnations.size,
        balanced: imbalance(ledger) === 0,
      }),
    )
    return
  }
  for (const lane of lanes) {
    const { sequences, entries, bytes, oldestMs } = stock[lane]
    const oldest = oldestMs === undefined ? '' : `, oldest ${new Date(oldestMs).toISOString()}`
    print(`${lane.padEnd(11)}${sequences} in ${entries} entries, ${bytes} bytes${oldest}`)
  }
  for (const [word, count] of Object.entries(ledger)) print(`${word.padEnd(15)}${count}`)
}

async function verify(store: Store, options: Options): Promise<void> {
  const { damage, stock } = await recover(store, systemRandom, systemClock.wallMs())
  const sequences = lanes.reduce((sum, lane) => sum + stock[lane].sequences, 0)
  tellDamage({ sequences, damage }, options)
}

/** @param found.sequences undefined where that cannot be known without touching anything */
function tellDamage(
  { sequences, damage }: { sequences?: number; damage: readonly string[] },
  { json }: Options,
): void {
  if (json) print(JSON.stringify({ sequences, damage }))
  else
    for (const line of damage.length > 0 ? damage : [`${sequences} sequences, all whole`])
      print(line)
  if (damage.length > 0) process.exitCode = 1
}

async function cat(store: Store, { json }: Options): Promise<void> {
  for await (const row of rows(store)) print(json ? jsonLine(row) : plainLine(row))
}

/** What waits under one sequence, or under the consecutive ones of a gap. */
type Row = { lane: Lane; sequence: number } & Content
type Content = { reading: Reading } | { other: Readonly<Record<string, unknown>> }

async function* rows(store: Store): AsyncIterable<Row> {
  for (const lane of lanes)
    for await (const { key, value } of store.read(entryRange(lane))) {
      const place = parseEntryKey(key)
      const entry = place && decodeEntry(key, value)
      if (!place || !entry) continue
      for (const { at, ...content } of contents(decodeItem(entry.item)))
        yield { lane, sequence: place.first + at, ...content }
    }
}

/** What an item holds, with how far behind its first sequence. */
function* contents(item: Item): Iterable<Content & { at: number }> {
  if (item.kind === 'gap')
    yield { at: 0, other: { gap: item.reason, sequences: item.count - readingsOf(item).length } }
  if (item.kind === 'records')
    for (const [at, record] of item.records.entries())
      yield record.type === 'quarantine'
        ? { at, other: { topic: record.topic, reason: record.reason, size: record.size } }
        : { at, other: { [record.type]: record.content } }
  const places = item.kind === 'gap' ? item.kept?.places : undefined
  for (const [i, reading] of readingsOf(item).entries()) yield { at: places?.[i] ?? i, reading }
}

function jsonLine(row: Row): string {
  const { lane, sequence } = row
  if ('other' in row) return JSON.stringify({ lane, sequence, ...row.other })
  return `{"lane":"${lane}","sequence":${sequence},${readingMembers(row.reading)}}`
}

function plainLine(row: Row): string {
  const { lane, sequence } = row
  if ('other' in row) {
    const words = Object.values(row.other).map((value) =>
      typeof value === 'object' ? JSON.stringify(value) : value,
    )
    return [lane, sequence, ...words].join(' ')
  }
  const { series, timeMs, timeNanos, value, quality } = row.reading
  const content = `${formatTime(timeMs, timeNanos)} ${csvValue(value)} ${qualityText(quality)}`
  return `${lane} ${sequence} ${series.device} ${series.metric} ${content}`
}

function print(line: string): void {
  process.stdout.write(`${line}\n`)
}
