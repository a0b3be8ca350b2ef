import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Quality, type Value } from '../../shared/reading.ts'
import { arrival, decoderOf, message } from '../support/decoding.ts'

const topic = 'sensors/a/t'

/** What becomes of one payload: its readings by metric, or the reason why there are none. */
function outcome(payload: string | Uint8Array, rule: object = {}) {
  const decoder = decoderOf([{ topic: 'sensors/{device}/+', ...rule }])
  const { readings, rejects } = decoder.decode([message(topic, payload)], arrival)
  if (rejects[0]) return rejects[0].reason
  return Object.fromEntries(readings.map(({ series, value }) => [series.metric, value]))
}

function read(payload: string): Value | string {
  const found = outcome(payload)
  return typeof found === 'string' ? found : found.value!
}

test('a scalar, or an object with a value, is a reading', () => {
  for (const [payload, value] of [
    ['21.50', 21.5],
    [' \t\r\n-0.5 ', -0.5],
    ['1e3', 1000],
    ['true', true],
    ['null', null],
    ['"open"', 'open'],
    ['"z\\u00fc\\ud83d\\ude00\\n"', 'zü😀\n'],
    ['{"v":false}', false],
    ['{"v":"","x":{"deep":[1,2]}}', ''],
    ['{"v":1,"v":2}', 2],
    ['{"__proto__":{"v":1},"v":3}', 3],
  ] as const)
    assert.deepEqual(outcome(payload), { value }, payload)
  assert.ok(Object.is(read('-0'), -0))
  assert.ok(Object.is(read('{"a":{},"v":-0}'), -0))
})

test('integers are exact to 64 bits, signed and unsigned, wherever they stand', () => {
  for (const [text, value] of [
    ['9007199254740991', 9007199254740991],
    ['9007199254740992', 9007199254740992n],
    ['-9007199254740993', -9007199254740993n],
    ['9223372036854775807', 9223372036854775807n],
    ['-9223372036854775808', -9223372036854775808n],
    ['18446744073709551615', 18446744073709551615n],
    ['12345678901234567890.0', 12345678901234567e3],
    ['123456789.12345678901234567890', 123456789.12345679],
    ['1000000000000000000000e0', 1e21],
  ] as const) {
    assert.equal(read(text), value)
    assert.equal(read(`{"v":${text}}`), value)
    assert.equal(read(`{"v":${text},"\\"[,":["}\\\\",{"\\u0041":null}]}`), value)
    assert.deepEqual(outcome(`[[],${text},{"x":${text}}]`, { values: 'all' }), {
      1: value,
      '2.x': value,
    })
  }
})

test('what is no value goes whole into quarantine and says why', () => {
  for (const [payload, reason, rule] of [
    ['', 'empty payload'],
    ['{}', 'no value at /v'],
    ['[1]', 'no value at /v'],
    ['{"a":{"b":1}}', 'no value at /a/c', { value: '/a/c' }],
    ['{"v":{}}', 'value: an object, not a number, boolean, text or null'],
    ['{"v":[1]}', 'value: an array, not a number, boolean, text or null'],
    ['18446744073709551616', 'value: integer beyond 64 bits'],
    ['{"v":-9223372036854775809}', 'value: integer beyond 64 bits'],
    ['1'.repeat(250_000), 'value: integer beyond 64 bits'],
    ['1e999', 'value: number beyond a float'],
    ['{"v":-1e999}', 'value: number beyond a float'],
    [`1234567890123456789e${'9'.repeat(300)}`, 'value: number beyond a float'],
    [JSON.stringify('ä'.repeat(129)), 'value: text longer than 256 bytes'],
    ['"\\ud800"', 'value: text that is not valid Unicode'],
    [
      '{"a":1,"b":[]}',
      'b: an array, not a number, boolean, text or null',
      { values: { a: '/a', b: '/b' } },
    ],
    ['{"c":1}', 'none of the values is there', { values: { a: '/a', b: '/b' } }],
    ['{"t":1}', 'no values', { values: 'all' }],
    ['[[],{}]', 'no values', { values: 'all' }],
    [`${'['.repeat(17)}1${']'.repeat(17)}`, 'nested deeper than 16', { values: 'all' }],
    [JSON.stringify(Array(1_001).fill(0)), 'more than 1000 values', { values: 'all' }],
    ['{"a":1,"":2}', 'metric is empty', { values: 'all' }],
  ] as [string, string, object?][])
    assert.equal(outcome(payload, rule), reason)
  assert.deepEqual(outcome(JSON.stringify('ä'.repeat(128))), { value: 'ä'.repeat(128) })
})

test('what is no JSON is told in one line', () => {
  for (const payload of [
    '21.5.',
    '1 2',
    '1\u0000',
    '\u0000',
    '\ufeff1',
    '{"v":1}x',
    "{'v':1}",
    '{"v":01}',
    '{"v":.5}',
    '{"v":1,}',
    '+1',
    'NaN',
    '-Infinity',
    '"a\nb"',
    '"a',
    'tru',
    '\u2028\u0085x',
    `{"v":12345678901234567890`,
  ]) {
    const reason = outcome(payload)
    assert.match(
      String(reason),
      /^not JSON: [^\p{C}\u2028\u2029]{1,120}$/u,
      JSON.stringify(payload),
    )
  }
  for (const bytes of [
    [0x22, 0xff, 0x22],
    [0x22, 0xc0, 0x80, 0x22],
    [0x22, 0xed, 0xa0, 0x80, 0x22],
  ])
    assert.equal(outcome(Uint8Array.from(bytes)), 'not JSON: invalid UTF-8')
})

test('plain text is told what it lacks', () => {
  for (const payload of ['on', ' open\n', 'überlauf'])
    assert.equal(outcome(payload), 'not JSON: plain text, which JSON wants in quotes')
  for (const payload of ['nan5', 'NaN', '21,5', 'null5'])
    assert.match(String(outcome(payload)), /^not JSON: /)
})

test('values are found by JSON Pointer', () => {
  const payload = '{"a/b":{"~":[10,{"":11}]},"length":12,"0":13,"~1":14}'
  for (const [value, found] of [
    ['/a~1b/~0/0', 10],
    ['/a~1b/~0/1/', 11],
    ['/length', 12],
    ['/0', 13],
    ['/~01', 14],
    ['/a~1b/~0/length', undefined],
    ['/a~1b/~0/00', undefined],
    ['/a~1b/~0/-', undefined],
    ['/a~1b/~0/2', undefined],
    ['/constructor', undefined],
    ['/__proto__', undefined],
  ] as const)
    assert.deepEqual(
      outcome(payload, { value }),
      found === undefined ? `no value at ${value}` : { value: found },
    )
  assert.deepEqual(outcome('5', { value: '' }), { value: 5 })
})

test('a rule may name many values, each with its unit and labels', () => {
  const values = {
    temp: { value: '/t1', unit: 'Cel', labels: { at: 'inlet' } },
    door: '/door',
    gone: '/gone',
  }
  const asList = [
    { metric: 'temp', value: '/t1', unit: 'Cel', labels: { at: 'inlet' } },
    { metric: 'door', value: '/door' },
    { metric: 'gone', value: '/gone' },
  ]
  for (const given of [values, asList]) {
    const decoder = decoderOf([
      { topic: '{device}', values: given, unit: '1', labels: { at: 'hall', site: 'n' } },
    ])
    const { readings } = decoder.decode([message('d', '{"t1":4,"door":"open"}')], arrival)
    assert.deepEqual(
      readings.map(({ series: { metric, unit, labels }, value }) => [metric, unit, labels, value]),
      [
        ['temp', 'Cel', { at: 'inlet', site: 'n' }, 4],
        ['door', '1', { at: 'hall', site: 'n' }, 'open'],
      ],
    )
  }
})

test('`values: all` takes every scalar, named by its path, but not the time', () => {
  const payload =
    '{"t":1763800000123,"a":{"t":1,"b":[true,null,{"c":"x"}]},"d":12345678901234567890}'
  assert.deepEqual(outcome(payload, { values: 'all' }), {
    'a.t': 1,
    'a.b.0': true,
    'a.b.1': null,
    'a.b.2.c': 'x',
    d: 12345678901234567890n,
  })
  assert.deepEqual(outcome('{"at":{"t":1763800000123,"u":1}}', { values: 'all', time: '/at/t' }), {
    'at.u': 1,
  })
  assert.deepEqual(outcome('{"t":21.5}', { values: 'all', time: 'none' }), { t: 21.5 })
  assert.deepEqual(outcome('7', { values: 'all', metric: 'm' }), { m: 7 })
})

const noon = Date.UTC(2025, 10, 22, 12)

function timeOf(written: string, rule: object = {}) {
  const decoder = decoderOf([{ topic: '#', ...rule }])
  const { readings } = decoder.decode([message(topic, `{"v":1,"t":${written}}`)], arrival)
  const { timeMs, timeNanos, quality } = readings[0]!
  return { timeMs, timeNanos, quality }
}

test('a time is exact to the nanosecond in every unit', () => {
  const exact = { timeMs: noon + 123, timeNanos: 456_789, quality: Quality.good }
  const milli = { ...exact, timeNanos: 0 }
  const seconds = noon / 1000
  for (const [written, timeUnit, time] of [
    [`${noon + 123}`, undefined, milli],
    [`"${noon + 123}"`, undefined, milli],
    [`${noon + 123}.456789`, undefined, exact],
    [`${noon + 123}.4567899999`, 'ms', exact],
    [`${seconds}.123456789`, 's', exact],
    [`${seconds}.123`, 's', milli],
    [`"${seconds}.123"`, 's', milli],
    [`${seconds}`, 's', { ...milli, timeMs: noon }],
    [`${seconds}123456.789`, 'us', exact],
    [`${seconds}123000`, 'us', milli],
    [`${seconds}123456789`, 'ns', exact],
    [`${seconds}123456789.9`, 'ns', exact],
    [`${seconds / 100}.00123456789e2`, 's', exact],
    [`${seconds}123456789E-9`, 's', exact],
    [`${seconds / 100}e11`, 'ns', { ...milli, timeMs: noon }],
    ['"2025-11-22T12:00:00.123456789Z"', undefined, exact],
    ['"2025-11-22T12:00:00.123456789"', 'iso', exact],
    ['"2025-11-22 13:30:00,1234567891+01:30"', undefined, exact],
    ['"2025-11-22t00:00:00.123-1200"', undefined, milli],
    ['"2025-11-22T12:00Z"', undefined, { ...milli, timeMs: noon }],
    ['"2025-11-22T14:00:00+02"', undefined, { ...milli, timeMs: noon }],
    ['"2025-11-22T11:59:60z"', undefined, { ...milli, timeMs: noon }],
  ] as const)
    assert.deepEqual(timeOf(written, timeUnit ? { timeUnit } : {}), time, `${written} ${timeUnit}`)
})

test('every day of the calendar is read right', () => {
  const days = Array.from({ length: 36_525 }, (_, n) => Date.UTC(2000, 0, 1 + n))
  const messages = days.map((day) => message(topic, `{"v":1,"t":"${new Date(day).toISOString()}"}`))
  const { readings } = decoderOf([{ topic: '#' }]).decode(messages, arrival)
  assert.deepEqual(
    readings.map(({ timeMs }) => timeMs),
    days,
  )
})

test('where there is no time, the arrival is the time; what cannot be one is marked too', () => {
  const good = { timeMs: arrival.wallMs, timeNanos: 0, quality: Quality.good }
  const marked = { ...good, quality: Quality.timeReplaced }
  assert.deepEqual(timeOf('null'), good)
  assert.deepEqual(timeOf(`${noon}`, { time: '/other' }), good)
  assert.deepEqual(timeOf(`${noon}`, { time: 'none' }), good)
  for (const [written, timeUnit] of [
    ['0', undefined],
    ['-1', undefined],
    ['true', undefined],
    ['{"x":1}', undefined],
    ['"yesterday"', undefined],
    ['""', undefined],
    ['"2025-02-29T00:00:00Z"', undefined],
    ['"2025-11-31T00:00:00Z"', undefined],
    ['"2025-13-01T00:00:00Z"', undefined],
    ['"2025-11-22T24:00:00Z"', undefined],
    ['"2025-11-22T12:60:00Z"', undefined],
    ['"2025-11-22T12:00:00."', undefined],
    ['"2025-11-22T12:00:00X"', undefined],
    ['"2025-11-22T12:00:00Zx"', undefined],
    ['"2025-11-22T12:00:00+0"', undefined],
    ['"2025-11-22T12:00:00+01:"', undefined],
    ['"2025-11-22T12:00:00+24:00"', undefined],
    ['"2025-11-22T12:00.5Z"', undefined],
    ['"2025-11-22"', undefined],
    ['"1999-12-31T23:59:59.999999999Z"', undefined],
    ['"2100-01-01T00:00:00Z"', undefined],
    [`${noon}`, 's'],
    [`${noon}`, 'iso'],
    [`"${noon}"`, 'iso'],
    [`"2025-11-22T12:00:00Z"`, 's'],
    [`1e${'9'.repeat(200)}`, undefined],
    ['1e-999', undefined],
    ['1'.repeat(100_000), 'ns'],
  ] as const)
    assert.deepEqual(
      timeOf(written, timeUnit ? { timeUnit } : {}),
      marked,
      `${written} ${timeUnit}`,
    )
  assert.deepEqual(timeOf('"2000-01-01T00:00:00Z"').quality, Quality.good)
})

test('a mark is of its own message only', () => {
  const { readings } = decoderOf([{ topic: '#' }]).decode(
    ['{"v":1,"t":1}', '2', '{"v":3,"t":1,"x":{}}', '{"v":4,"x":{}}'].map((payload) =>
      message(topic, payload),
    ),
    arrival,
  )
  assert.deepEqual(
    readings.map(({ quality }) => quality),
    [Quality.timeReplaced, Quality.good, Quality.timeReplaced, Quality.good],
  )
})

test('no payload of 256 KiB costs more than 50 ms of CPU', () => {
  const size = 256 * 1024
  const fill = (unit: string) => unit.repeat(Math.floor(size / unit.length))
  const half = size / 2 - 10
  const names = (name: (i: number) => string, long = '') => {
    let text = ''
    for (let i = 0; text.length < size - 100; i++) text += `${text ? ',' : ''}"${name(i)}":1`
    return `{${text}${long}}`
  }
  const long = '12345678901234567890'
  const payloads = {
    'open brackets': fill('['),
    'open objects': fill('{"a":'),
    'closed brackets': `${'['.repeat(half)}${']'.repeat(half)}`,
    'closed brackets around an exact number': `${'['.repeat(half)}${long}${']'.repeat(half)}`,
    'one integer': fill('7'),
    'one fraction': `0.${fill('7')}`.slice(0, size),
    'one exponent': `1e${fill('9')}`.slice(0, size),
    escapes: `"${fill('\\u0041').slice(12)}"`,
    'escapes beside an exact number': `["${fill('\\u0041').slice(60)}",${long}]`,
    backslashes: `["${fill('\\\\').slice(60)}",${long}]`,
    'ones beside an exact number': `[${fill('1,').slice(60)}${long}]`,
    'exact numbers': `[${fill(`${long},`).slice(60)}1]`,
    'empty arrays': `[${fill('[],').slice(60)}1]`,
    'many names': names((i) => `k${i}`),
    'many names and an exact number': names((i) => `k${i}`, `,"v":${long}`),
    'number-like names': names((i) => `${(i * 1_000_003) % 4_294_967_295}`, `,"v":${long}`),
    spaces: `${fill(' ').slice(2)}1`,
    'half a text': `"${fill('a').slice(2)}`,
    bytes: Uint8Array.from({ length: size }, (_, i) => (i * 7919) & 0xff),
  }
  const rules: object[] = [
    {},
    { values: 'all' },
    { value: `${'/0'.repeat(500)}` },
    { timeUnit: 'ns', time: '/v', value: '/k1' },
    { values: Object.fromEntries(Array.from({ length: 1_000 }, (_, i) => [`m${i}`, `/k${i}/x`])) },
  ]
  for (const rule of rules) {
    const decoder = decoderOf([{ topic: '#', ...rule }])
    for (const [name, payload] of Object.entries(payloads)) {
      const group = [message(topic, payload)]
      // The best of a few, since others use this machine too.
      let bestMs = Number.POSITIVE_INFINITY
      for (let run = 0; run < 8 && bestMs > 20; run++) {
        const before = process.threadCpuUsage()
        decoder.decode(group, arrival)
        const { user, system } = process.threadCpuUsage(before)
        bestMs = Math.min(bestMs, (user + system) / 1000)
      }
      assert.ok(
        bestMs < 50,
        `${name} cost ${bestMs.toFixed(1)} ms with ${JSON.stringify(rule).slice(0, 60)}`,
      )
    }
  }
})
