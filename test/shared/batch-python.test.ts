import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { test } from 'node:test'
import {
  type BatchHeader,
  chainItem,
  encodeBatch,
  encodeItem,
  type Item,
  itemCount,
} from '../../shared/batch.ts'
import { chainStart, chainToBytes } from '../../shared/chain.ts'
import type { AdmittedReading } from '../../shared/reading.ts'
import { plant } from '../bench/wire/sources.ts'
import { absent } from '../support/needs.ts'
import { BatchGenerator } from './batch-generator.ts'

/** Debian's, whatever else is on the path: cbor2 comes as a package of its. */
const python = '/usr/bin/python3'

test('Python reads every reading of a batch with cbor2 and docs/WIRE.md', (t) => {
  if (spawnSync(python, ['-c', 'import cbor2']).status !== 0)
    return absent(t, 'needs cbor2: apt-get install python3-cbor2')

  const batches = Array.from({ length: 150 }, (_, seed) => {
    const generator = new BatchGenerator(seed)
    const items = Array.from({ length: 1 + generator.seeded.below(4) }, () => generator.item())
    return { header: generator.header(totalOf(items)), items }
  })
  const { readings } = plant(2400)
  batches.push({
    header: new BatchGenerator(9).header(2400),
    items: [{ kind: 'readings', readings }],
  })

  const input = batches.flatMap(({ header, items }) => {
    const encoded = Buffer.concat(encodeBatch(header, items.map(encodeItem)))
    const length = Buffer.alloc(4)
    length.writeUInt32BE(encoded.length)
    return [length, encoded]
  })
  const script = new URL('./batch_reader.py', import.meta.url).pathname
  const { status, stdout, stderr } = spawnSync(python, [script], {
    input: Buffer.concat(input),
    maxBuffer: 2 ** 29,
  })
  assert.equal(status, 0, stderr.toString())
  const lines = stdout.toString().trimEnd().split('\n')
  assert.equal(lines.length, batches.length)
  batches.forEach((batch, i) => {
    assert.deepEqual(JSON.parse(lines[i]!), batchAsRead(batch), `batch ${i}`)
  })
})

/** What batch_reader.py prints. */
function batchAsRead({ header, items }: { header: BatchHeader; items: Item[] }): unknown {
  let chain = chainStart
  return {
    header: {
      ...header,
      incarnation: hex(header.incarnation),
      before: hex(chainToBytes(header.before)),
      after: hex(chainToBytes(header.after)),
      boot: hex(header.boot),
      predecessor: header.predecessor
        ? { ...header.predecessor, incarnation: hex(header.predecessor.incarnation) }
        : null,
      ledger: header.ledger ?? null,
    },
    items: items.map((item) => {
      chain = chainItem(item, chain)
      return {
        kind: ['readings', 'records', 'gap'].indexOf(item.kind),
        count: itemCount(item),
        body: bodyAsRead(item),
        chain: hex(chainToBytes(chain)),
      }
    }),
  }
}

function bodyAsRead(item: Item): unknown {
  if (item.kind === 'readings') return readingsAsRead(item.readings)
  if (item.kind === 'records')
    return item.records.map((record) => {
      if (record.type !== 'quarantine') return { ...record, content: plain(record.content) }
      const { payload, sha256, arrival, ...rest } = record
      return {
        ...rest,
        payload: hex(payload),
        sha256: sha256 ? hex(sha256) : null,
        arrival: [arrival.wallMs, plain(arrival.monotonicMs)],
      }
    })
  const { after, fromMs = null, toMs = null, series, reason, atLeast, kept } = item
  return {
    reason,
    after: hex(chainToBytes(after)),
    series: series.map(({ device, metric, count }) => [device, metric, count]),
    fromMs,
    toMs,
    atLeast,
    ...(kept && { kept: { ...kept, readings: readingsAsRead(kept.readings) } }),
  }
}

function readingsAsRead(readings: readonly AdmittedReading[]): unknown {
  return readings.map(({ series, value, arrival, ...rest }) => {
    const { hash: _, unit = null, epsilon, ...names } = series
    return {
      ...rest,
      series: { ...names, unit, epsilon: plain(epsilon) },
      value: plain(value),
      arrival: [arrival.wallMs, plain(arrival.monotonicMs)],
    }
  })
}

/** JSON that keeps what JSON numbers lose, as `plain` in batch_reader.py. */
function plain(value: unknown): unknown {
  if (typeof value === 'bigint') return { integer: String(value) }
  if (typeof value === 'number') {
    const bytes = Buffer.alloc(8)
    bytes.writeDoubleBE(value)
    return { float64: Number.isNaN(value) ? 'nan' : bytes.toString('hex') }
  }
  if (Array.isArray(value)) return value.map(plain)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, plain(member)]))
}

function totalOf(items: readonly Item[]): number {
  return items.reduce((count, item) => count + itemCount(item), 0)
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex')
}
