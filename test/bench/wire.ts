// Bytes a reading on the wire, and what it costs to make and read batches: `node test/bench/wire.ts`.
// The reference is what the devices published, topic and JSON payload one a line, under gzip level 1.
import { gunzipSync, gzipSync } from 'node:zlib'
import {
  compress,
  decodeBatch,
  type Encoding,
  encodeBatch,
  encodeItem,
  inflate,
  inspectBatch,
  mergeItems,
} from '../../shared/batch.ts'
import { type AdmittedReading, SeriesTable } from '../../shared/reading.ts'
import { bench, cpuRatio, interleave } from './harness/bench.ts'
import { type Figure, figure, median, missing } from './harness/figure.ts'
import { groupsOf, jsonLines, nab, plant, type Source } from './wire/sources.ts'

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
  { encoding: 'zstd', level: 9 },
  { encoding: 'gzip', level: 1 },
  { encoding: 'gzip' },
  { encoding: 'identity' },
]

await bench(async ({ short, rounds, say }) => {
  const seeds = Array.from({ length: Math.max(5, rounds) }, (_, i) => 12_345 + i)
  const figures = sizes.flatMap((size) => [
    sizeFigure(`wire.${size}`, size, (seed) => plant(12_000, seed), seeds),
    nab(1)
      ? sizeFigure(`wire.nab.${size}`, size, (seed) => nab(12_000, seed)!, seeds)
      : missing(`wire.nab.${size}`, 'ratio', 'the data set ../shared/data/nab is absent'),
  ])
  if (!short) for (const size of sizes) compare(plant(12_000), size, say)
  // Rounds are short, and of either side of a ratio the quickest counts.
  figures.push(...(await speed(plant(12_000), 25, short)))
  return figures
})

function sizeFigure(
  name: string,
  size: number,
  source: (seed: number) => Source,
  seeds: readonly number[],
): Figure {
  const shares = seeds.map((seed) => {
    const readings = source(seed).readings.slice(0, size)
    const reference = gzipSync(jsonLines(readings), { level: 1 }).length
    return compress(batchOf(readings), 'zstd').length / reference
  })
  return figure(name, shares, 'ratio', { atMost: bounds[name]! })
}

/** What other encodings would make of it. */
function compare(source: Source, size: number, say: (line: string) => void): void {
  const readings = source.readings.slice(0, size)
  const reference = gzipSync(jsonLines(readings), { level: 1 }).length
  const chunks = batchOf(readings)
  const perReading = (bytes: number) => (bytes / size).toFixed(3)
  say(`${source.name}, ${size} a batch; JSON under gzip -1: ${perReading(reference)} B a reading`)
  for (const { encoding, level } of settings) {
    const repeats = Math.ceil(48_000 / size)
    let bytes = 0
    const { user, system } = cpuOf(() => {
      for (let i = 0; i < repeats; i++) bytes = compress(chunks, encoding, level).length
    })
    const cost = ((user + system) / repeats / size).toFixed(2)
    const label = `${encoding}${level === undefined ? ' (default)' : ` -${level}`}`.padEnd(18)
    const ratio = (reference / bytes).toFixed(2)
    say(`  ${label} ${perReading(bytes)} B, 1/${ratio}, ${cost} CPU s a million readings`)
  }
}

async function speed({ readings }: Source, rounds: number, short: boolean): Promise<Figure[]> {
  const item = encodeItem({ kind: 'readings', readings })
  const table = new SeriesTable()
  const batch = Buffer.concat(encodeBatch(header(readings.length), [item]))
  const body = compress([batch], 'zstd')
  const groups = encodedGroups(readings)
  const lines = jsonLines(readings)
  const zipped = gzipSync(lines, { level: 1 })
  const count = readings.length
  const rates = await interleave(rounds, {
    encode: rate(count, () => encodeItem({ kind: 'readings', readings })),
    decode: rate(count, () => decodeBatch(batch, table)),
    inspect: rate(count, () => inspectBatch(batch)),
    merge: short ? undefined : rate(count, () => mergeItems(groups)),
    // The whole way in both directions, against JSON's.
    pack: rate(count, () => compress([encodeItem({ kind: 'readings', readings })], 'zstd')),
    unpack: rate(count, () => decodeBatch(inflate(body, 'zstd', 2 ** 23), table)),
    packJson: rate(count, () => gzipSync(jsonLines(readings), { level: 1 })),
    unpackJson: rate(count, () => parseLines(gunzipSync(zipped))),
  })
  const perSecond = (name: string, values: number[], atLeast?: number) =>
    figure(`wire.${name}PerSecond`, values, 'readings/s', atLeast ? { atLeast } : {})
  return [
    perSecond('encode', rates.encode, 2e6),
    perSecond('decode', rates.decode, 3e6),
    perSecond('inspect', rates.inspect),
    ...(short ? [] : [perSecond('merge', rates.merge)]),
    cpuRatio('wire.encodeCpuRatio', costs(rates.pack), costs(rates.packJson)),
    cpuRatio('wire.decodeCpuRatio', costs(rates.unpack), costs(rates.unpackJson)),
    cpuRatio('wire.inspectCpuRatio', costs(rates.inspect), costs(rates.unpackJson)),
  ]
}

function costs(perSecond: readonly number[]): number[] {
  return perSecond.map((rate) => 1 / rate)
}

/** Readings in one CPU second, as the median of a few stretches. */
function rate(count: number, work: () => unknown): () => Promise<number> {
  return async () => {
    const stretches = []
    for (let i = 0; i < 3; i++) {
      let calls = 0
      const { user, system } = cpuOf(() => {
        const endMs = performance.now() + 40
        do {
          work()
          calls++
        } while (performance.now() < endMs)
      })
      stretches.push((calls * count * 1e6) / (user + system))
    }
    return median(stretches)
  }
}

function cpuOf(work: () => void): NodeJS.CpuUsage {
  const before = process.cpuUsage()
  work()
  return process.cpuUsage(before)
}

function parseLines(lines: Buffer): unknown[] {
  return lines
    .toString('utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line.slice(line.indexOf(' '))))
}

/** As the agent makes it: an item a group, joined when the batch closes. */
function batchOf(readings: AdmittedReading[]): Uint8Array[] {
  return encodeBatch(header(readings.length), mergeItems(encodedGroups(readings)))
}

function encodedGroups(readings: readonly AdmittedReading[]): Uint8Array[] {
  return groupsOf(readings).map((group) => encodeItem({ kind: 'readings', readings: group }))
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
