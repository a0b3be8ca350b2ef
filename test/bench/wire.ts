// Bytes per reading on the wire, and how fast batches are made and read: `node test/bench/wire.ts [--json]`.
// The reference is what the devices published, topic and JSON payload one a line, under gzip level 1.
import { gzipSync } from 'node:zlib'
import {
  compress,
  decodeBatch,
  type Encoding,
  encodeBatch,
  encodeItem,
  inspectBatch,
  mergeItems,
} from '../../shared/batch.ts'
import { type AdmittedReading, SeriesTable } from '../../shared/reading.ts'
import { jsonLines, nab, plant, type Source } from './wire/sources.ts'

interface Figure {
  name: string
  figure: number
  unit: string
  /** Repetitions behind the figure, which is their median; 1 where it does not vary. */
  runs: number
  /** Undefined where nothing is asked of it. */
  holds: boolean | undefined
}

const sizes = [600, 12_000]
/** Most that our bytes may be of the reference. */
const bounds: Record<string, number> = {
  'wire.600': 1 / 3,
  'wire.12000': 1 / 7,
  'wire.nab.600': 1 / 2.2,
  'wire.nab.12000': 1 / 2.4,
}
const settings: { encoding: Encoding; level?: number }[] = [
  { encoding: 'zstd' },
  { encoding: 'zstd', level: 1 },
  { encoding: 'zstd', level: 6 },
  { encoding: 'zstd', level: 9 },
  { encoding: 'gzip', level: 1 },
  { encoding: 'gzip' },
  { encoding: 'gzip', level: 9 },
  { encoding: 'identity' },
]
const rounds = 9

const json = process.argv.includes('--json')
const figures: Figure[] = []
const print = (line: string) => {
  if (!json) process.stdout.write(`${line}\n`)
}

for (const source of [plant(12_000), nab(12_000)]) {
  if (source) for (const size of sizes) measureSize(source, size)
  else print('nab: skipped, the data set ../shared/data/nab is absent\n')
}
measureSpeed(plant(12_000))
if (json) process.stdout.write(`${JSON.stringify(figures, null, 2)}\n`)
process.exitCode = figures.every(({ holds }) => holds !== false) ? 0 : 1

function measureSize(source: Source, size: number): void {
  const readings = source.readings.slice(0, size)
  const reference = gzipSync(jsonLines(readings), { level: 1 }).length
  const chunks = batchOf(readings)
  print(`${source.name}, ${size} readings a batch; JSON under gzip -1: ${perReading(reference)} B/reading`)
  for (const { encoding, level } of settings) {
    const started = process.cpuUsage()
    let bytes = 0
    const repeats = Math.ceil(24_000 / size)
    for (let i = 0; i < repeats; i++) bytes = compress(chunks, encoding, level).length
    const { user, system } = process.cpuUsage(started)
    const cost = (user + system) / repeats / size
    const label = `${encoding}${level === undefined ? ' (default)' : ` -${level}`}`
    print(
      `  ${label.padEnd(18)} ${perReading(bytes)} B/reading, 1/${(reference / bytes).toFixed(2)}, ${cost.toFixed(2)} CPU s a million`,
    )
    if (encoding === 'zstd' && level === undefined) {
      const name = `wire.${source.name === 'plant' ? '' : `${source.name}.`}${size}`
      const figure = bytes / reference
      figures.push({ name, figure, unit: 'ratio', runs: 1, holds: figure <= bounds[name]! })
    }
  }
  print('')

  function perReading(bytes: number): string {
    return (bytes / size).toFixed(3)
  }
}

function measureSpeed({ readings }: Source): void {
  const item = encodeItem({ kind: 'readings', readings })
  const small = batchOf(readings.slice(0, 600))
  const table = new SeriesTable()
  const batch = Buffer.concat(encodeBatch(header(readings.length), [item]))
  const batch600 = Buffer.concat(small)
  const rate = (name: string, count: number, least: number | undefined, work: () => unknown) => {
    const figure = count * ratePerSecond(work)
    const holds = least === undefined ? undefined : figure >= least
    figures.push({ name, figure: Math.round(figure), unit: 'readings/s', runs: rounds, holds })
    print(`${name.padEnd(28)} ${(figure / 1e6).toFixed(2)} M readings/s`)
  }
  rate('wire.encodePerSecond', readings.length, 2e6, () => encodeItem({ kind: 'readings', readings }))
  rate('wire.decodePerSecond', readings.length, 3e6, () => decodeBatch(batch, table))
  rate('wire.inspectPerSecond', readings.length, 10e6, () => inspectBatch(batch))
  rate('wire.encode600PerSecond', 600, undefined, () =>
    encodeItem({ kind: 'readings', readings: readings.slice(0, 600) }),
  )
  rate('wire.decode600PerSecond', 600, undefined, () => decodeBatch(batch600, table))
  rate('wire.inspect600PerSecond', 600, undefined, () => inspectBatch(batch600))
  const groups = groupsOf(readings)
  rate('wire.mergePerSecond', readings.length, undefined, () => mergeItems(groups))
}

/** Median over the rounds of calls per CPU second. */
function ratePerSecond(work: () => unknown): number {
  const rates: number[] = []
  for (let round = 0; round < rounds; round++) {
    const started = process.cpuUsage()
    let calls = 0
    let spent = 0
    do {
      work()
      calls++
      const { user, system } = process.cpuUsage(started)
      spent = user + system
    } while (spent < 100_000)
    rates.push((calls * 1e6) / spent)
  }
  return rates.sort((a, b) => a - b)[rounds >> 1]!
}

/** As the agent makes it: an item a group, joined when the batch closes. */
function batchOf(readings: AdmittedReading[]): Uint8Array[] {
  return encodeBatch(header(readings.length), mergeItems(groupsOf(readings)))
}

function groupsOf(readings: AdmittedReading[]): Uint8Array[] {
  const groups: Uint8Array[] = []
  for (let start = 0; start < readings.length; ) {
    let end = start
    while (end < readings.length && readings[end]!.arrival === readings[start]!.arrival) end++
    groups.push(encodeItem({ kind: 'readings', readings: readings.slice(start, end) }))
    start = end
  }
  return groups
}

function header(count: number): Parameters<typeof encodeBatch>[0] {
  const random = (length: number) => crypto.getRandomValues(new Uint8Array(length))
  return {
    agent: 'gw-001',
    incarnation: random(16),
    lane: 'bulk',
    first: 1_000_001,
    last: 1_000_000 + count,
    before: { high: 0x9e3779b9, low: 0x85ebca6b },
    after: { high: 0xc2b2ae35, low: 0x27d4eb2f },
    predecessor: undefined,
    boot: random(16),
    sentMs: 1_763_800_060_123,
    ledger: undefined,
  }
}
