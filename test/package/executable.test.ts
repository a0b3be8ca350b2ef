import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { copyFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { root } from '../../shared/package/paths.ts'
import { Mosquitto } from '../support/mosquitto.ts'
import { Cloud, Gateway } from '../support/plant.ts'
import { Sensor } from '../support/sensor.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { built, dist, executable, version } from './support/built.ts'

const agent = executable('agent')
const addonFile =
  process.arch === 'arm64'
    ? 'classic-level/prebuilds/linux-arm64/classic-level.armv8.node'
    : 'classic-level/prebuilds/linux-x64/classic-level.node'

function call(...args: string[]) {
  return spawnSync(agent, args, { encoding: 'utf8', env: {} })
}

test('the file alone says what it is', async (t) => {
  const alone = join(await temporaryDirectory(t), 'headgate-agent')
  await copyFile(agent, alone)
  const said = JSON.parse(execFileSync(alone, ['version', '--json'], { encoding: 'utf8', env: {} }))
  assert.deepEqual(said, {
    name: 'headgate-agent',
    version,
    node: '24.21.0',
    platform: 'linux',
    arch: process.arch,
  })
})

test('help names every command, as it is called here', () => {
  const { stdout, status } = call('--help')
  assert.equal(status, 0)
  for (const command of [
    'run',
    'check',
    'enrol',
    'status',
    'tap',
    'flush',
    'filter',
    'outbox',
    'version',
  ])
    assert.match(stdout, new RegExp(`^ {2}${command}[ |]`, 'm'))
  assert.match(call('run', '--help').stdout, /Example:\n {2}headgate-agent run --config/)
  assert.match(call('outbox', 'ls', '--help').stdout, /Example:\n {2}headgate-agent outbox ls/)
})

test('`headgate agent check` and `headgate-agent check` are the same', async (t) => {
  const { configFile } = await Gateway.make(t, {
    directory: await temporaryDirectory(t),
    broker: 'mqtt://127.0.0.1',
    collector: 'http://127.0.0.1:7070',
  })
  const { stdout, status } = call('check', '--config', configFile)
  assert.equal(status, 0)
  assert.match(stdout, /good\. agent gw-001/)
  assert.equal(call('agent', 'check', '--config', configFile).stdout, stdout)
})

test('the configuration of the package counts, unless another one or a data folder is named', () => {
  const url = ['--url', 'https://127.0.0.1:1', '--token', 'hg1.none']
  assert.match(call('enrol', ...url).stderr, /\/etc\/headgate\/agent\.yaml/)
  assert.match(call('check', '--config', '/nowhere/a.yaml').stderr, /\/nowhere\/a\.yaml/)
  assert.match(call('enrol', ...url, '--data', '/nowhere').stderr, /the token is none/)
})

test('a wrong call is one line and exit code 2', () => {
  for (const args of [['nonsense'], ['run', '--nonsense'], []]) {
    const { stderr, status } = call(...args)
    assert.equal(status, 2)
    assert.match(stderr, /^headgate-agent: .+\n$/)
  }
})

test('readings go from the broker to the log, whatever NODE_OPTIONS says and SIGUSR1 asks for', async (t) => {
  const broker = await Mosquitto.start(t)
  if (!broker) return
  const cloud = await Cloud.make(t, { directory: await temporaryDirectory(t) })
  await cloud.start()
  const gateway = await Gateway.make(t, {
    directory: await temporaryDirectory(t),
    broker: broker.url,
    collector: cloud.url,
  })
  const process = await gateway.start({
    command: [agent],
    env: { NODE_OPTIONS: '--inspect=127.0.0.1:0 --require /nonexistent.cjs' },
  })
  await gateway.subscribed()
  globalThis.process.kill(process.pid, 'SIGUSR1')
  const sensor = new Sensor(broker.url)
  await sensor.publish(100)
  await gateway.drained(100)
  assert.doesNotMatch(process.stderr, /debugger/i)
  assert.equal((await process.stop()).code, 0)
  const values = (await cloud.readings()).map(({ value }) => Number(value))
  assert.deepEqual(
    values.sort((a, b) => a - b),
    Array.from({ length: 100 }, (_, index) => index + 1),
  )
})

test('a native part that is not the one of this version is not loaded', async (t) => {
  const directory = await temporaryDirectory(t)
  await copyFile(agent, join(directory, 'headgate-agent'))
  await copyFile('/bin/true', join(directory, 'classic-level.node'))
  const gateway = await Gateway.make(t, {
    directory,
    broker: 'mqtt://127.0.0.1:1',
    collector: 'http://127.0.0.1:1',
  })
  // Another file beside the executable does not keep it from the one that it carries.
  const process = await gateway.start({ command: [join(directory, 'headgate-agent')] })
  assert.equal((await process.stop()).code, 0)
})

test('the native part is loaded from a folder that is gone by then', async (t) => {
  const TMPDIR = await temporaryDirectory(t)
  const gateway = await Gateway.make(t, {
    directory: await temporaryDirectory(t),
    broker: 'mqtt://127.0.0.1:1',
    collector: 'http://127.0.0.1:1',
  })
  const process = await gateway.start({ command: [agent], env: { TMPDIR } })
  const maps = readFileSync(`/proc/${process.pid}/maps`, 'utf8')
  assert.match(maps, new RegExp(`${TMPDIR}/headgate-\\w+/classic-level\\.node \\(deleted\\)`))
  assert.deepEqual(readdirSync(TMPDIR), [])
})

test('a file that was damaged on its way loads nothing, and says so', async (t) => {
  const directory = await temporaryDirectory(t)
  const damaged = join(directory, 'headgate-agent')
  const bytes = readFileSync(agent)
  const addon = readFileSync(join(root, `node_modules/${addonFile}`))
  const at = bytes.indexOf(addon.subarray(0, 4096))
  assert.ok(at > 0)
  bytes[at + addon.length - 100]! ^= 1
  writeFileSync(damaged, bytes, { mode: 0o755 })
  const gateway = await Gateway.make(t, {
    directory,
    broker: 'mqtt://127.0.0.1:1',
    collector: 'http://127.0.0.1:1',
  })
  const process = gateway.launch({ command: [damaged] })
  assert.equal((await process.ended()).code, 1)
  assert.match(process.stderr, /headgate-agent is damaged: copy it again/)
})

test('files are as small as promised', (t) => {
  for (const arch of ['x64', 'arm64']) {
    const bytes = statSync(built(`headgate-agent-linux-${arch}`)).size
    t.diagnostic(`headgate-agent-linux-${arch} ${(bytes / 1e6).toFixed(1)} MB`)
    assert.ok(bytes <= 120e6)
  }
  for (const machine of ['amd64', 'arm64']) {
    const bytes = statSync(built(`headgate-agent_${version}_${machine}.deb`)).size
    t.diagnostic(
      `headgate-agent_${version}_${machine}.deb, xz in it: ${(bytes / 1e6).toFixed(1)} MB`,
    )
    assert.ok(bytes <= 33e6)
  }
})

test('SHA256SUMS tells a good copy from a bad one', () => {
  execFileSync('sha256sum', ['--check', '--quiet', '--strict', 'SHA256SUMS'], { cwd: dist })
  const sums = readFileSync(built('SHA256SUMS'), 'utf8')
  for (const name of [`headgate-agent-linux-x64`, `headgate-agent_${version}_arm64.deb`])
    assert.match(sums, new RegExp(`^[0-9a-f]{64} {2}${name}$`, 'm'))
})

test('the bill of materials is what is in the bundle, each with its licence', () => {
  const { components } = JSON.parse(readFileSync(built('headgate-agent.cdx.json'), 'utf8')) as {
    components: { name: string; version: string; components?: { name: string }[] }[]
  }
  const names = components.map(({ name }) => name)
  for (const used of ['node', 'undici', 'ws', 'classic-level', 'zod', 'mqtt-packet', 'pino'])
    assert.ok(names.includes(used), `${used} is in the bundle`)
  for (const unused of [
    'mqtt',
    'aedes',
    'thread-stream',
    'readable-stream',
    'bufferutil',
    'esbuild',
  ])
    assert.ok(!names.includes(unused), `${unused} is not in the bundle`)
  const parts = components.flatMap(({ components: inner = [] }) => inner.map(({ name }) => name))
  for (const part of ['openssl', 'v8', 'leveldb', 'snappy']) assert.ok(parts.includes(part))
  const licences = readFileSync(built('headgate-agent.licences.txt'), 'utf8')
  for (const { name, version } of components) assert.ok(licences.includes(`\n${name} ${version} (`))
})
