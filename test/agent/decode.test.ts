import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Format } from '../../agent/decode/format.ts'
import type { StateReader } from '../../agent/state.ts'
import { Quality, SeriesTable } from '../../shared/reading.ts'
import { arrival, decoderOf, message } from '../support/decoding.ts'

const plain = { topic: 'sensors/{device}/{metric}' }

test('a topic names device and metric, and what else it names becomes labels', () => {
  const decoder = decoderOf([
    {
      topic: 'plant/{line}/{device}/{metric}',
      unit: 'Cel',
      labels: { site: 'north', floor: 2 },
    },
  ])
  const { readings, counts, rejects } = decoder.decode(
    [message('plant/l1/oven/temperature', '21.50')],
    arrival,
  )
  assert.deepEqual(rejects, [])
  assert.deepEqual(counts, [1])
  const { series, ...rest } = readings[0]!
  assert.deepEqual(rest, {
    timeMs: arrival.wallMs,
    timeNanos: 0,
    value: 21.5,
    quality: Quality.good,
    arrival,
  })
  assert.equal(series.device, 'oven')
  assert.equal(series.metric, 'temperature')
  assert.equal(series.unit, 'Cel')
  assert.deepEqual(series.labels, { floor: '2', line: 'l1', site: 'north' })
})

test('what topic and rule leave unnamed is the agent and `value`', () => {
  const decoder = decoderOf([
    { topic: 'a' },
    { topic: 'b', device: 'pump', metric: 'flow' },
    { topic: 'c', metric: 'motor', values: { speed: '/s' } },
  ])
  const { readings } = decoder.decode(
    [message('a', '1'), message('b', '2'), message('c', '{"s":3}')],
    arrival,
  )
  assert.deepEqual(
    readings.map(({ series, value }) => [series.device, series.metric, value]),
    [
      ['gw-001', 'value', 1],
      ['pump', 'flow', 2],
      ['gw-001', 'motor.speed', 3],
    ],
  )
})

test('the first rule that matches decides', () => {
  const decoder = decoderOf([
    { topic: 'sensors/oven/{metric}', device: 'the oven' },
    plain,
    { topic: '#', device: 'rest' },
  ])
  const { readings } = decoder.decode(
    [message('sensors/oven/t', '1'), message('sensors/fan/t', '2'), message('x', '3')],
    arrival,
  )
  assert.deepEqual(
    readings.map(({ series }) => series.device),
    ['the oven', 'fan', 'rest'],
  )
})

test('readings stand in the order of their messages, and a reject stops none of them', () => {
  const decoder = decoderOf([plain, { topic: 'all/{device}', values: 'all' }])
  const { readings, counts, rejects } = decoder.decode(
    [
      message('sensors/a/t', '1'),
      message('sensors/a/t', 'oops'),
      message('all/b', '{"x":2,"y":{"z":3}}'),
      message('nobody/knows', '4'),
      message('sensors/a/t', '5'),
    ],
    arrival,
  )
  assert.deepEqual(
    readings.map(({ value }) => value),
    [1, 2, 3, 5],
  )
  assert.deepEqual(counts, [1, 0, 2, 0, 1])
  assert.deepEqual(
    rejects.map(({ topic, payload, size, sha256, reason }) => [
      topic,
      new TextDecoder().decode(payload),
      size,
      sha256,
      reason.split(':')[0],
    ]),
    [
      ['sensors/a/t', 'oops', 4, undefined, 'not JSON'],
      ['nobody/knows', '4', 1, undefined, 'no rule for this topic'],
    ],
  )
  assert.deepEqual(rejects[0]!.arrival, arrival)
})

test('a message beyond the size limit is quarantined with its true size and hash', () => {
  const sha256 = new Uint8Array(32).fill(7)
  const cut = new Uint8Array(65_536)
  const { readings, rejects } = decoderOf([plain]).decode(
    [message('sensors/a/t', cut, { oversize: { size: 300_000, sha256 } })],
    arrival,
  )
  assert.deepEqual(readings, [])
  const [only] = rejects
  assert.equal(only?.payload, cut)
  assert.equal(only?.size, 300_000)
  assert.equal(only?.sha256, sha256)
  assert.match(only?.reason ?? '', /source\.maxMessageBytes.*300000/)
})

test('a message that the source finds fault with is quarantined for that', () => {
  const { rejects } = decoderOf([{ topic: '#' }]).decode(
    [message('a/+', '1', { fault: 'a wildcard in its topic' })],
    arrival,
  )
  assert.equal(rejects[0]?.reason, 'a wildcard in its topic')
})

test('readings of a retained copy are marked', () => {
  const { readings } = decoderOf([plain]).decode(
    [message('sensors/a/t', '1', { retained: true }), message('sensors/a/t', '{"v":2,"t":5}')],
    arrival,
  )
  assert.deepEqual(
    readings.map(({ quality }) => quality),
    [Quality.retained, Quality.timeReplaced],
  )
})

test('names that cannot travel are refused by what is wrong with them', () => {
  const decoder = decoderOf([plain, { topic: 'all/{device}', values: 'all' }])
  const topics = [
    ['sensors//t', '1', 'device is empty'],
    ['sensors/a/', '1', 'metric is empty'],
    [`sensors/${'ä'.repeat(129)}/t`, '1', 'device is longer than 256 bytes'],
    ['sensors/a\n/t', '1', 'device has a control character'],
    ['all/a', '{"\\ud800":1}', 'metric is not valid Unicode'],
  ] as const
  for (const [topic, payload, reason] of topics)
    assert.equal(decoder.decode([message(topic, payload)], arrival).rejects[0]?.reason, reason)
  const longest = message(`sensors/${'ä'.repeat(128)}/t`, '1')
  assert.equal(decoder.decode([longest], arrival).readings.length, 1)
})

test('topics without a rule are counted one by one, in bounded space', () => {
  const decoder = decoderOf([plain])
  decoder.decode([message('x/1', '1'), message('x/2', '1'), message('x/1', '1')], arrival)
  assert.deepEqual(decoder.unmatchedTopics(), [
    { topic: 'x/1', count: 2 },
    { topic: 'x/2', count: 1 },
  ])
  const flood = Array.from({ length: 5_000 }, (_, i) => message(`y/${i}`, '1'))
  decoder.decode([...flood, message(`z/${'z'.repeat(60_000)}`, '1')], arrival)
  const rows = decoder.unmatchedTopics()
  assert.equal(rows.length, 1_001)
  assert.deepEqual(rows.at(-1), { topic: '(other topics)', count: 5_001 - 998 })
})

test('one series is one object, until more series than are remembered came between', () => {
  const series = new SeriesTable(100)
  const decoder = decoderOf([plain], { series })
  const seriesOf = (topic: string) =>
    decoder.decode([message(topic, '1')], arrival).readings[0]!.series
  const first = seriesOf('sensors/a/t')
  assert.equal(seriesOf('sensors/a/t'), first)
  for (let i = 0; i < 50_000; i++) seriesOf(`sensors/invented${i}/t`)
  assert.ok(series.size <= 200, `${series.size} series are held`)
  assert.deepEqual(seriesOf('sensors/a/t'), first)
})

/** Counts, by topic, in state of its own; adds the count as a reading and answers each third message. */
class Counting implements Format {
  readonly #counts = new Map<string, number>()

  restore(key: string, value: Uint8Array): void {
    this.#counts.set(key, value[0]!)
  }

  prepare() {
    const decoder: ReturnType<Format['prepare']> = {
      decode: ({ topic, payload }, matched, output) => {
        const count = (this.#counts.get(topic) ?? 0) + 1
        const series = matched.series('count')
        if (typeof series === 'string') return series
        output.reading(series, 1, 2, count, Quality.good)
        output.keep(topic, Uint8Array.of(count))
        output.ask(`answer/${topic}`, Uint8Array.of(count))
        if (payload[0] === 0x21) return 'refused at the last moment'
        if (payload[0] === 0x3f) throw new Error('a mistake')
        this.#counts.set(topic, count)
        return undefined
      },
    }
    return decoder
  }
}

function counting() {
  const rules = [{ ...plain, format: 'counting', time: '/t' }] as never
  return decoderOf([plain], { rules, formats: { counting: new Counting() } })
}

test("a format's state commits with the group, comes back at a start, and it may publish", async () => {
  const first = counting().decode(
    [message('sensors/a/t', 'x'), message('sensors/a/t', 'x')],
    arrival,
  )
  assert.deepEqual(
    first.readings.map(({ series, value }) => [series.metric, value]),
    [
      ['t.count', 1],
      ['t.count', 2],
    ],
  )
  assert.deepEqual(first.state.at(-1), {
    space: 'decode',
    key: 'counting/sensors/a/t',
    value: Uint8Array.of(2),
  })
  assert.deepEqual(first.publish.at(-1), {
    topic: 'answer/sensors/a/t',
    payload: Uint8Array.of(2),
  })

  const committed: StateReader = {
    async *read(space) {
      assert.equal(space, 'decode')
      yield { key: 'gone/sensors/a/t', value: Uint8Array.of(9) }
      for (const { key, value } of first.state) yield { key, value: value! }
    },
  }
  const restarted = counting()
  await restarted.restore(committed)
  const next = restarted.decode([message('sensors/a/t', 'x')], arrival)
  assert.equal(next.readings[0]?.value, 3)
})

test('a message that is refused, or meets a mistake of ours, leaves nothing behind', () => {
  const { readings, counts, rejects, state, publish } = counting().decode(
    [message('sensors/a/t', 'x'), message('sensors/a/t', '!'), message('sensors/a/t', '?')],
    arrival,
  )
  assert.deepEqual(counts, [1, 0, 0])
  assert.equal(readings.length, 1)
  assert.equal(state.length, 1)
  assert.equal(publish.length, 1)
  assert.deepEqual(
    rejects.map(({ reason }) => reason),
    ['refused at the last moment', 'decoder failed: a mistake'],
  )
})
