import { existsSync, readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Command } from 'commander'
import { decodeItem, type Item } from '../shared/batch.ts'
import { UserError } from '../shared/failure.ts'
import { imbalance } from '../shared/ledger.ts'
import type { Store } from '../shared/ports.ts'
import { type Lane, lanes, qualityText, type Reading } from '../shared/reading.ts'
import { systemClock, systemRandom } from '../shared/system.ts'
import { formatTime } from '../shared/time-text.ts'
import { csvText, csvValue } from '../shared/value-text.ts'
import { decodeEntry } from './outbox/entry.ts'
import { readMeta } from './outbox/format.ts'
import { openHealed } from './outbox/heal.ts'
import { entryRange, parseEntryKey } from './outbox/key.ts'
import { openLevel } from './outbox/level.ts'
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
    subcommand(command, name, about).action(async (options: Options) => {
      const store = await openLevel(outboxFolder(options.data))
      try {
        await readMeta(store)
        await work(store, options)
      } finally {
        await store.close()
      }
    })
  add('ls', 'what waits in each lane, and the ledger', list)
  add('verify', 'check every entry; exit code 1 when something is damaged', verify)
  add('cat', 'print what waits, in order of delivery', cat)
  add('export', 'print the readings that wait as CSV, or with --json as JSON lines', exportReadings)
  subcommand(
    command,
    'repair',
    'set damaged files aside, keep what is whole, declare the rest',
  ).action(repair)
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
export function outboxFolder(data: string): string {
  for (const folder of [join(data, 'outbox'), join(data, 'agent', 'outbox')])
    if (existsSync(folder) && readdirSync(folder).length > 0) return folder
  throw new UserError(
    `${data}: holds no outbox: name the agent's data folder (\`data\` in agent.yaml)`,
  )
}

/** What the agent does at its start, without the agent. */
async function repair({ data, json }: Options): Promise<void> {
  const folder = outboxFolder(data)
  const stamp = new Date().toISOString().replaceAll(':', '-')
  const { store, report } = await openHealed(folder, join(dirname(folder), 'damaged'), stamp)
  try {
    await readMeta(store)
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

async function verify(store: Store, { json }: Options): Promise<void> {
  const { damage, stock } = await recover(store, systemRandom, systemClock.wallMs())
  const sequences = lanes.reduce((sum, lane) => sum + stock[lane].sequences, 0)
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
      let sequence = place.first
      for (const content of contents(decodeItem(entry.item)))
        yield { lane, sequence: sequence++, ...content }
    }
}

function* contents(item: Item): Iterable<Content> {
  if (item.kind === 'gap') yield { other: { gap: item.reason, sequences: item.count } }
  else if (item.kind === 'readings') for (const reading of item.readings) yield { reading }
  else
    for (const record of item.records)
      yield record.type === 'quarantine'
        ? { other: { topic: record.topic, reason: record.reason, size: record.size } }
        : { other: { [record.type]: record.content } }
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
