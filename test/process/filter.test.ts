import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import mqtt from 'mqtt'
import { keepsQueue, Mosquitto } from '../support/mosquitto.ts'
import { Cloud, Gateway } from '../support/plant.ts'
import { Headgate } from '../support/process.ts'
import { Seeded } from '../support/seeded.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const rows = 20_000
const stepMs = 10_000
const error = 0.4
const spikes = [5_000, 12_000, 18_000]
const filter = [
  {
    match: { metric: 'value' },
    check: { range: [0, 100], missing: '5m' },
    detect: {},
    reduce: { error },
    around: { before: '1m', after: '1m' },
  },
]

interface Row {
  time: string
  value: number
}

/** What `headgate log cat` prints of a reading. */
interface Logged extends Row {
  quality: string
  lane: string
  between?: string
  epsilon?: number
  received: string
  arrived: string
}

interface LoggedAlert {
  content: { kind: string; state: string; timeMs: number; [name: string]: unknown }
  arrived: string
}

interface Plant {
  broker: Mosquitto
  cloud: Cloud
  gateway: Gateway
}

async function start(t: TestContext, more: Record<string, unknown>): Promise<Plant | undefined> {
  const broker = await Mosquitto.start(t, { lines: keepsQueue })
  if (!broker) return undefined
  const directory = await temporaryDirectory(t)
  const cloud = await Cloud.make(t, { directory: `${directory}/cloud` })
  await cloud.start()
  const { url: collector } = cloud
  const place = { directory: `${directory}/gateway`, broker: broker.url, collector }
  const gateway = await Gateway.make(t, { ...place, more })
  await gateway.start()
  await gateway.subscribed()
  return { broker, cloud, gateway }
}

/** Noise about a daily cycle, with spikes. */
function recording(): Row[] {
  const random = new Seeded(6)
  const startMs = Date.UTC(2026, 0, 5)
  return Array.from({ length: rows }, (_, row) => {
    const daily = 20 * Math.sin((row * stepMs * 2 * Math.PI) / 86_400_000)
    const noise = random.uniform() - 0.5
    const value = spikes.includes(row) ? 120 : 50 + daily + noise
    return {
      time: new Date(startMs + row * stepMs).toISOString(),
      value: Number(value.toFixed(3)),
    }
  })
}

async function traceOf(t: TestContext, given: readonly Row[]): Promise<string> {
  const file = join(await temporaryDirectory(t), 'boiler.csv')
  const lines = given.map(({ time, value }) => `${time},${value}\n`)
  await writeFile(file, `timestamp,value\n${lines.join('')}`)
  return file
}

async function logged<Line>(t: TestContext, cloud: Cloud, stream: string): Promise<Line[]> {
  const args = ['log', 'cat', '--data', cloud.data, '--stream', stream, '--format', 'ndjson']
  const { code, stdout, stderr } = await Headgate.run(t, args)
  assert.equal(code, 0, stderr)
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line))
}

/** Each reading is in the log, or within the stated error of what a consumer puts in its place. */
function compare(log: readonly Logged[], given: readonly Row[]): void {
  const points = log.toSorted((a, b) => Date.parse(a.time) - Date.parse(b.time))
  assert.equal(new Set(points.map(({ time }) => time)).size, points.length, 'none twice')
  let next = 0
  for (const [row, { time, value }] of given.entries()) {
    if (points[next]?.time === time) {
      assert.equal(points[next++]!.value, value)
      continue
    }
    const [from, to] = [points[next - 1]!, points[next]!]
    assert.deepEqual([to.between, to.epsilon], ['linear', error], `row ${row} lies on a line`)
    const [a, b] = [Date.parse(from.time), Date.parse(to.time)]
    const line = from.value + ((to.value - from.value) * (Date.parse(time) - a)) / (b - a)
    assert.ok(Math.abs(line - value) <= error + 1e-9, `row ${row}: ${line} for ${value}`)
  }
  assert.equal(next, points.length, 'nothing but what was sent')
}

test('with a filter each reading is within its bound, whenever the agent is killed', async (t) => {
  const plant = await start(t, { filter })
  if (!plant) return
  const { broker, cloud, gateway } = plant
  const given = recording()
  const trace = await traceOf(t, given)
  const play = ['--broker', broker.url, '--trace', trace, '--speed', '20000', '--json']
  const sim = Headgate.start(t, ['sim', ...play])
  for (const share of [1, 2, 3, 4, 5]) {
    const enough = (share * rows) / 6
    await gateway.until(({ ledger }) => ledger.received >= enough, 'the agent has taken a share')
    if (share === 1) assert.ok(sim.isRunning, 'the recording had ended before the first kill')
    await gateway.kill()
    await gateway.start()
  }
  assert.equal((await sim.ended()).code, 0, sim.stderr)
  const { ledger, totals } = await gateway.drained(rows)

  const readings = await logged<Logged>(t, cloud, 'readings')
  compare(readings, given)
  const told = JSON.stringify(ledger)
  assert.equal(ledger.received - ledger.deduplicated, rows, told)
  assert.equal(ledger.forwarded, readings.length, told)
  assert.equal(ledger.suppressed, rows - readings.length, told)
  assert.ok(readings.length < rows / 2, `${readings.length} kept`)

  const alerts = await logged<LoggedAlert>(t, cloud, 'alerts')
  for (const spike of spikes) {
    const timeMs = Date.parse(given[spike]!.time)
    const of = alerts.filter(
      ({ content: { kind, state, timeMs: toldMs } }) =>
        kind === 'range' && state === 'raised' && toldMs === timeMs,
    )
    assert.equal(of.length, 1, `alerts of row ${spike}`)
    // What follows it came whole, six readings a minute; what came before too, unless a kill fell between.
    const after = readings.filter(({ time }) => {
      const sinceMs = Date.parse(time) - timeMs
      return sinceMs >= 0 && sinceMs <= 60_000
    })
    assert.equal(after.length, 7, `readings after row ${spike}`)
  }

  const whole = await start(t, {})
  const all = ['--broker', whole!.broker.url, '--trace', trace, '--speed', 'max', '--json']
  assert.equal((await Headgate.run(t, ['sim', ...all])).code, 0)
  const unfiltered = await whole!.gateway.drained(rows)
  const [less, more] = [totals.wire.monthBytes, unfiltered.totals.wire.monthBytes]
  t.diagnostic(`${less} bytes on the wire with the filter, ${more} without`)
  assert.ok(less < more, `${less} bytes with the filter, ${more} without`)
})

test('every alert is in the log within a second of its reading', async (t) => {
  const plant = await start(t, { filter })
  if (!plant) return
  const { broker, cloud, gateway } = plant
  const client = await mqtt.connectAsync(broker.url)
  t.after(() => client.endAsync())
  const given = recording().slice(0, 2_000)
  const high = [500, 900, 1_300, 1_700]
  for (const row of high) given[row]!.value = 140
  /** When the readings were sent, by their time, wall ms. */
  const sentMs = new Map<number, number>()
  const send = ({ time, value }: Row) => {
    sentMs.set(Date.parse(time), Date.now())
    const payload = JSON.stringify({ v: value, t: time })
    return client.publishAsync('sensors/boiler/value', payload, { qos: 1 })
  }
  for (let row = 0; row < given.length; row += 20)
    await Promise.all(given.slice(row, row + 20).map(send))
  const taken = await gateway.drained(given.length)
  assert.deepEqual(taken.filter, { series: 1, beyondMaxSeries: 0, late: 0, unreadable: 0 })

  const alerts = await logged<LoggedAlert>(t, cloud, 'alerts')
  const told = alerts.map(({ content: { kind, state, timeMs } }) => `${kind} ${state} ${timeMs}`)
  for (const row of high)
    assert.ok(told.includes(`range raised ${Date.parse(given[row]!.time)}`), `${row}: ${told}`)
  assert.ok(told.some((one) => one.startsWith('anomaly raised')))
  const tookMs = alerts.map(({ content, arrived }) => {
    const took = Date.parse(arrived) - sentMs.get(content.timeMs)!
    assert.ok(took < 1000, `${content.kind} ${content.state}: ${took} ms`)
    return took
  })
  t.diagnostic(`${alerts.length} alerts, the slowest in ${Math.max(...tookMs)} ms`)
  const readings = await logged<Logged>(t, cloud, 'readings')
  for (const { lane, quality } of readings.filter(({ value }) => value === 140)) {
    assert.equal(lane, 'urgent', 'and so is the reading itself')
    assert.match(quality, /outOfRange/)
  }
})
