import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Ajv } from 'ajv'
import { columns, rowOf } from '../../collector/sinks/columns.ts'
import { avroEncoder } from '../../collector/sinks/registry/avro.ts'
import { avroSchema, jsonSchema } from '../../collector/sinks/registry/schemas.ts'
import { rowJson } from '../../collector/sinks/row-json.ts'
import { SeriesTable, type Value } from '../../shared/reading.ts'
import { reading } from '../support/readings.ts'
import { alertRecords, readingRecords } from '../support/sinks.ts'

const farMs = 2 ** 48
const [first] = readingRecords([reading()])
const series = new SeriesTable().intern('', '\u0000', { labels: { '': '' }, epsilon: 1e308 })

test('the ends of all that ingest lets in have a value in either format', () => {
  const encode = avroEncoder(avroSchema('Record', columns), columns)
  const validate = new Ajv({ validateFormats: false }).compile(
    JSON.parse(jsonSchema('Record', columns).text),
  )
  const values: Value[] = [2n ** 64n - 1n, -(2n ** 63n), Number.NaN, '', 'x'.repeat(100_000), null]
  for (const value of values)
    for (const timeMs of [-farMs, farMs])
      for (const quality of [0, 2 ** 31 - 1]) {
        const end = {
          ...{ series, value, timeMs, quality, timeNanos: 999_999 },
          arrival: { wallMs: timeMs, monotonicMs: 0 },
        }
        const place = { ...first!, sequence: 2 ** 53 - 1, offset: 2 ** 53 - 1, arrivedMs: timeMs }
        const row = rowOf({ ...place, stream: 'readings', reading: end, boot: new Uint8Array(16) })
        assert.ok(encode(row).length > 60)
        assert.ok(validate(JSON.parse(rowJson(row))), JSON.stringify(validate.errors))
      }
  for (const record of alertRecords(1)) {
    assert.match(encode(rowOf(record)).toString(), /\{"timeMs":1767225700000,"device":"pump-1"/)
    assert.ok(validate(JSON.parse(rowJson(rowOf(record)))), JSON.stringify(validate.errors))
  }
})
