import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { Broker } from '../../firmware-sim/broker.ts'
import type { SimReport } from '../../firmware-sim/sim-command.ts'
import { absent } from '../support/needs.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { until } from '../support/until.ts'
import { Running, run } from './command.ts'
import { Subscriber } from './subscriber.ts'

async function heard(t: TestContext): Promise<{ url: string; subscriber: Subscriber }> {
  const broker = await Broker.open({ host: '127.0.0.1', port: 0 })
  t.after(() => broker.close())
  return { url: broker.url, subscriber: await Subscriber.open(t, broker.url) }
}

const lines = ({ received }: Subscriber) =>
  received.map(({ topic, payload }) => `${topic} ${payload}`)

test('traces are sent as they stand, and the report says how many', async (t) => {
  const { url, subscriber } = await heard(t)
  const directory = await temporaryDirectory(t)
  const [one, wide, long] = ['one.csv', 'wide.csv', 'long.csv'].map((name) => join(directory, name))
  await writeFile(one!, 'timestamp,value\n1704067200,21.50\n1704067200,21.50\n1704067190,21.4\n')
  await writeFile(wide!, 'timestamp;a;b\n1704067195;1;\nbad;1;2\n')
  await writeFile(long!, 'timestamp,device,metric,value\n1704067201,d,m,9007199254740993\n')
  const args = ['sim', '--broker', url, '--speed', 'max', '--json', '--trace', one!, wide!]
  const { code, stdout, stderr } = await run(t, [...args, '--trace', long!])
  assert.equal(code, 0)
  const { elapsedMs, ...report } = JSON.parse(stdout) as SimReport
  assert.ok(elapsedMs > 0)
  assert.deepEqual(report, {
    sent: 5,
    acknowledged: 5,
    resent: 0,
    badRows: 1,
    devices: { d: 1, one: 3, wide: 1 },
  })
  assert.match(stderr, /wide\.csv:3: "bad" is no time; row skipped\n/)
  await until(() => subscriber.received.length === 5, 'all messages')
  assert.deepEqual(lines(subscriber), [
    'sensors/wide/a {"t":1704067195000,"v":1}',
    'sensors/one/value {"t":1704067200000,"v":21.50}',
    'sensors/one/value {"t":1704067200000,"v":21.50}',
    'sensors/one/value {"t":1704067190000,"v":21.4}',
    'sensors/d/m {"t":1704067201000,"v":9007199254740993}',
  ])
})

test('all series of NAB side by side arrive complete, each in its own order', async (t) => {
  const folder = '../shared/data/nab'
  const manifest = await readFile(`${folder}/MANIFEST.csv`, 'utf8').catch(() => undefined)
  if (manifest === undefined) return absent(t, `needs ${folder}`)
  const series = manifest
    .trimEnd()
    .split('\n')
    .slice(1)
    .map((row) => row.split(',')[0]!)
  const files = series.map((name) => `${folder}/data/${name.replace(/^data\//, '')}`)
  const { url, subscriber } = await heard(t)
  const { code, stdout } = await run(t, [
    'sim',
    '--broker',
    url,
    '--speed',
    'max',
    '--json',
    '--trace',
    ...files,
  ])
  assert.equal(code, 0)
  const report = JSON.parse(stdout) as SimReport
  assert.deepEqual([report.sent, report.acknowledged, report.badRows], [125_698, 125_698, 0])
  await until(() => subscriber.received.length === report.sent, 'all messages')
  const values = Map.groupBy(subscriber.received, ({ topic }) => topic.split('/')[1]!)
  for (const file of files) {
    const rows = (await readFile(file, 'utf8')).trimEnd().split('\n').slice(1)
    const device = file.replace(/^.*\/|\.csv$/g, '')
    assert.deepEqual(
      values.get(device)?.map(({ payload }) => /"v":(.*)}$/.exec(payload)?.[1]),
      rows.map((row) => row.trimEnd().split(',')[1]),
      device,
    )
  }
})

test('the same seed sends the same bytes', async (t) => {
  const sent = async (seed: string) => {
    const { url, subscriber } = await heard(t)
    const args = ['sim', '--broker', url, '--seed', seed, '--speed', 'max', '--devices', '3']
    assert.equal((await run(t, [...args, '--rows', '100'])).code, 0)
    await until(() => subscriber.received.length === 100, 'all messages')
    return lines(subscriber)
  }
  const first = await sent('5')
  assert.deepEqual(await sent('5'), first)
  assert.notDeepEqual(await sent('6'), first)
})

test('a scenario goes to a file that plays the same again, with its labels', async (t) => {
  const directory = await temporaryDirectory(t)
  const [out, labels] = [join(directory, 'out.csv'), join(directory, 'labels.json')]
  const play = ['sim', '--scenario', 'vehicle', '--seed', '3', '--duration', '5m']
  const { code, stdout } = await run(t, [...play, '--out', out, '--labels', labels, '--json'])
  assert.equal(code, 0)
  const { written } = JSON.parse(stdout) as { written: number }
  assert.equal((await readFile(out, 'utf8')).trimEnd().split('\n').length, written + 1)
  for (const label of JSON.parse(await readFile(labels, 'utf8')) as object[])
    assert.deepEqual(Object.keys(label), ['device', 'metric', 'fault', 'from', 'to'])

  const published = async (args: string[]) => {
    const { url, subscriber } = await heard(t)
    const ended = await run(t, ['sim', '--broker', url, '--speed', 'max', '--json', ...args])
    const { sent } = JSON.parse(ended.stdout) as SimReport
    await until(() => subscriber.received.length === sent, 'all messages')
    return lines(subscriber).filter((line) => /\{"t":\d+,"v":[^n]/.test(line))
  }
  assert.deepEqual(await published(['--trace', out]), await published(play.slice(1)))
})

test('SIGTERM ends an endless run with everything acknowledged', async (t) => {
  const { url, subscriber } = await heard(t)
  const sim = new Running(t, ['sim', '--broker', url, '--speed', 'max', '--json'])
  await until(() => subscriber.received.length > 2000, 'a run under way')
  sim.child.kill('SIGTERM')
  assert.equal(await sim.ended(), 0)
  const { sent, acknowledged } = JSON.parse(sim.stdout) as SimReport
  assert.equal(acknowledged, sent)
  await until(() => subscriber.received.length === sent, 'all messages')
})

test('SIGTERM ends a run whose broker is gone', async (t) => {
  const broker = await Broker.open({ host: '127.0.0.1', port: 0 })
  const sim = new Running(t, ['sim', '--broker', broker.url, '--speed', 'max', '--json'])
  await broker.close()
  await until(() => sim.stderr.includes('trying again'), 'the broker is missed')
  sim.child.kill('SIGTERM')
  assert.equal(await sim.ended(), 0)
  const { sent, acknowledged } = JSON.parse(sim.stdout) as SimReport
  assert.ok(sent >= acknowledged)
})

test('this machine is a device of its own', async (t) => {
  const { url, subscriber } = await heard(t)
  const sim = new Running(t, ['sim', '--broker', url, '--devices', '1', '--host-metrics'])
  const mine = () => subscriber.received.filter(({ topic }) => topic.includes(`/${hostname()}/`))
  await until(() => mine().length >= 2, 'readings of this machine')
  sim.child.kill('SIGTERM')
  assert.equal(await sim.ended(), 0)
  const metrics = new Set(mine().map(({ topic }) => topic.split('/')[2]))
  assert.ok(metrics.has('load') && metrics.has('memory_used'))
  for (const { payload } of mine()) assert.ok(Math.abs(JSON.parse(payload).t - Date.now()) < 60_000)
})

const wrongCalls: [string[], RegExp, number][] = [
  [['--speed', '-1'], /--speed takes a number above 0/, 2],
  [['--qos', '2'], /--qos takes 0 or 1/, 2],
  [['--devices', '0'], /--devices takes a whole number from 1 on/, 2],
  [['--duration', 'long'], /--duration takes a time/, 2],
  [['--trace', 'x.csv', '--scenario', 'vehicle'], /either --trace or --scenario/, 2],
  [['--labels', 'x.json'], /--labels needs a --scenario/, 2],
  [['--scenario', 'nonsense'], /no scenario "nonsense": one of building/, 2],
  [['--trace', 'nowhere.csv'], /nowhere\.csv: no such file: check --trace/, 2],
  [['--out', 'x.csv'], /--out needs an end/, 2],
  [['--scenario', 'vehicle', '--out', '/nowhere/x.csv'], /its folder does not exist/, 1],
  [['--broker', 'mqtt://127.0.0.1:9', '--give-up', '200ms'], /nothing listens there.*--broker/, 1],
]
for (const [args, message, exitCode] of wrongCalls)
  test(`headgate sim ${args.join(' ')}: one line, exit ${exitCode}`, async (t) => {
    const { code, stdout, stderr } = await run(t, ['sim', ...args])
    assert.equal(code, exitCode)
    assert.equal(stdout, '')
    assert.match(stderr.trimEnd().split('\n').at(-1)!, message)
  })

test('headgate broker prints its address and ends on SIGTERM', async (t) => {
  const broker = new Running(t, ['broker', '--port', '0', '--json'])
  await until(() => broker.stdout.includes('\n'), 'the address')
  const { url } = JSON.parse(broker.stdout) as { url: string }
  assert.match(url, /^mqtt:\/\/127\.0\.0\.1:\d+$/)
  // Also with a client that is still there.
  await Subscriber.open(t, url, { reconnectPeriod: 0 })
  const { stderr, code } = await run(t, ['broker', '--port', new URL(url).port])
  assert.equal(code, 1)
  assert.match(stderr, /is taken: give another one, or --port 0/)
  broker.child.kill('SIGTERM')
  assert.equal(await broker.ended(), 0)
})

for (const name of ['sim', 'broker'])
  test(`headgate ${name} --help shows an example`, async (t) => {
    const { code, stdout } = await run(t, [name, '--help'])
    assert.equal(code, 0)
    assert.match(stdout, new RegExp(`Examples?:\\n {2}headgate ${name} `))
  })
