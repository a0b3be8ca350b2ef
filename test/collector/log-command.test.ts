import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { promisify } from 'node:util'
import { Collector } from '../../collector/collector.ts'
import { TestAgent } from '../support/batches.ts'
import { cleanUp } from '../support/clean-up.ts'
import { collectorConfig, send } from '../support/collector.ts'
import { Headgate } from '../support/process.ts'
import { silentLog } from '../support/silent-log.ts'
import { temporaryDirectory } from '../support/temporary.ts'

/** A running collector that holds three batches of `count` readings, and its folder. */
async function collectorWith(t: TestContext, count: number) {
  const config = await collectorConfig(await temporaryDirectory(t))
  const collector = await Collector.open(config, silentLog)
  cleanUp(t, () => collector.close())
  const agent = new TestAgent()
  for (let i = 0; i < 3; i++) await send(collector.url, agent.readings(count))
  return { collector, folder: config.data, agent }
}

async function log(t: TestContext, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await Headgate.run(t, ['log', ...args])
  assert.deepEqual([code, stderr], [0, ''])
  return stdout
}

test('the log reads the same from its folder and from the collector, while that runs', async (t) => {
  const { collector, folder } = await collectorWith(t, 4)
  for (const args of [
    ['cat'],
    ['cat', '--from', '3', '--to', '7', '--format', 'ndjson'],
    ['cat', '--from', '2026-01-01T00:00:03Z', '--device', 'pump-1'],
    ['cat', '--stream', 'gaps'],
    ['ls'],
    ['ls', '--json'],
    ['verify', '--json'],
  ]) {
    const [fromFolder, fromCollector] = await Promise.all([
      log(t, ...args, '--data', folder),
      log(t, ...args, '--collector', collector.url),
    ])
    assert.equal(fromFolder, fromCollector, args.join(' '))
    assert.ok(fromFolder.length > 0)
  }
  const rows = (await log(t, 'cat', '--data', folder)).trimEnd().split('\n')
  assert.equal(rows.length, 13)
  // The folder of an `up` has the collector's inside.
  const up = join(folder, '..', 'up')
  await promisify(execFile)('mkdir', ['-p', up])
  await promisify(execFile)('cp', ['-r', folder, join(up, 'collector')])
  assert.equal((await log(t, 'cat', '--data', up)).trimEnd().split('\n').length, 13)
})

test('a tail of the folder follows the running collector', async (t) => {
  const { collector, folder, agent } = await collectorWith(t, 2)
  for (const source of [
    ['--data', folder],
    ['--collector', collector.url],
  ]) {
    const { next } = agent
    const tail = Headgate.start(t, ['log', 'tail', '--from', String(next - 2), ...source])
    await tail.printed(new RegExp(`^${next - 2},`, 'm'))
    await send(collector.url, agent.readings(2))
    await tail.printed(new RegExp(`^${next},`, 'm'))
    const { code } = await tail.stop()
    assert.equal(code, 0)
    assert.equal(tail.stderr, '')
  }
})

test('a reader that has seen enough ends it quietly', async (t) => {
  const { folder } = await collectorWith(t, 20_000)
  const program = new URL('../../headgate.mjs', import.meta.url).pathname
  const line = `"${process.execPath}" "${program}" log cat --data "${folder}" | head -n 2`
  const { stdout, stderr } = await promisify(execFile)('bash', ['-o', 'pipefail', '-c', line])
  assert.equal(stdout.trimEnd().split('\n').length, 2)
  assert.equal(stderr, '')
})

test('damage is told by verify and by readers, and served by none', async (t) => {
  const { collector, folder } = await collectorWith(t, 5)
  await collector.close()
  const file = join(folder, 'log/0/000000000001.segment')
  const bytes = await readFile(file)
  const mark = bytes.subarray(32, 40)
  const second = bytes.indexOf(mark, bytes.indexOf(mark, 88) + 1)
  bytes[second + 250]! ^= 1
  await writeFile(file, bytes)

  const verify = await Headgate.run(t, ['log', 'verify', '--data', folder])
  assert.equal(verify.code, 1)
  assert.match(verify.stdout, /segment 1, byte|bytes \d+ to \d+ are damaged/)
  assert.match(verify.stdout, /readings: offsets 5 to 9 are lost/)
  const cat = await Headgate.run(t, ['log', 'cat', '--data', folder])
  assert.equal(cat.code, 1)
  assert.match(cat.stderr, /offsets 5 to 9 are damaged/)
  const offsets = cat.stdout
    .trimEnd()
    .split('\n')
    .slice(1)
    .map((row) => Number(row.split(',')[0]))
  assert.deepEqual(offsets, [0, 1, 2, 3, 4, 10, 11, 12, 13, 14])
})

test('a wrong call gets one line that says what to do, and exit code 2', async (t) => {
  const folder = await temporaryDirectory(t)
  const cases: [string[], number, RegExp][] = [
    [['cat'], 2, /either --data or --collector/],
    [['cat', '--data', folder, '--collector', 'http://x'], 2, /either --data or --collector/],
    [['cat', '--data', folder, '--from', 'noon'], 2, /from takes an offset or a time/],
    [['cat', '--data', folder, '--stream', 'x'], 2, /readings, alerts/],
    [['cat', '--data', folder, '--format', 'xml'], 2, /ndjson, csv/],
    [['ls', '--data', folder], 1, /no log here/],
    [['ls', '--data', join(folder, 'nowhere')], 1, /no log here/],
    [['ls', '--collector', 'http://127.0.0.1:1'], 1, /is it running/],
    [['ls', '--collector', 'nonsense'], 2, /nonsense/],
  ]
  for (const [args, code, message] of cases) {
    const outcome = await Headgate.run(t, ['log', ...args])
    assert.equal(outcome.code, code, args.join(' '))
    assert.match(outcome.stderr, message)
    assert.match(outcome.stderr, /^headgate: [^\n]+\n$/)
    assert.equal(outcome.stdout, '')
  }
})

test('every command of the log has a help with an example', async (t) => {
  for (const command of ['ls', 'cat', 'tail', 'verify'])
    assert.match(await log(t, command, '--help'), /Examples?:\n {2}headgate log/)
})

test('repair cuts what a crash left and says what stays damaged; not while a collector runs', async (t) => {
  const { collector, folder } = await collectorWith(t, 4)
  const repair = () => Headgate.run(t, ['log', 'repair', '--data', folder, '--json'])
  const held = await repair()
  assert.equal(held.code, 1)
  assert.match(held.stderr, /another collector uses it/)
  await collector.close()

  const [name] = (await readdir(join(folder, 'log/0'))).filter((name) => name.endsWith('.segment'))
  const file = join(folder, 'log/0', name!)
  const whole = await readFile(file)
  await writeFile(file, Buffer.concat([whole, whole.subarray(-100, -20)]))
  const cut = await repair()
  assert.equal(cut.code, 0, cut.stderr)
  const { repaired, problems } = JSON.parse(cut.stdout)
  assert.match(repaired.join(), /cut what a crash had left .*80 bytes/)
  assert.deepEqual(problems, [])
  assert.deepEqual(JSON.parse((await repair()).stdout), { repaired: [], problems: [] })

  const bytes = await readFile(file)
  bytes[Math.floor(whole.length / 3)]! ^= 1
  await writeFile(file, bytes)
  const damaged = await repair()
  assert.equal(damaged.code, 1)
  assert.ok(JSON.parse(damaged.stdout).problems.length > 0)
})
