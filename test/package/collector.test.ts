import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { after, before, test } from 'node:test'
import { stringify } from 'yaml'
import { Mosquitto } from '../support/mosquitto.ts'
import { needs } from '../support/needs.ts'
import { Cloud, Gateway } from '../support/plant.ts'
import { Headgate } from '../support/process.ts'
import { Sensor } from '../support/sensor.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { arm64, build, dist, executable, version } from './support/built.ts'

let out: string

before(() => {
  out = mkdtempSync(join(dist, '.collector-'))
  const env = { SOURCE_DATE_EPOCH: '1767225600' }
  build('collector', ['--level', '0', '--out', out], { env })
})
after(() => rmSync(out, { recursive: true, force: true }))

for (const arch of ['x64', 'arm64'] as const)
  test(`the ${arch} collector takes each reading once, over a kill, and shows its log`, async (t) => {
    const through = arch === 'arm64' ? arm64(t) : []
    if (!through || (arch === 'x64' && process.arch !== 'x64')) return
    const broker = await Mosquitto.start(t)
    if (!broker) return
    const collector = join(out, `headgate-collector-linux-${arch}`)
    const cloud = await Cloud.make(t, { directory: await temporaryDirectory(t) })
    const options = { through, command: [collector] }
    await cloud.start(options)
    const gateway = await Gateway.make(t, {
      directory: await temporaryDirectory(t),
      broker: broker.url,
      collector: cloud.url,
    })
    await gateway.start({ command: [executable('agent')] })
    await gateway.subscribed()
    const sensor = new Sensor(broker.url)
    await sensor.publish(100)
    await gateway.drained(100)
    await cloud.kill()
    await sensor.publish(100)
    await cloud.start(options)
    await gateway.drained(200)
    await cloud.stop()
    const [program, ...args] = [
      ...through,
      collector,
      'log',
      'cat',
      '--data',
      cloud.data,
      '--format',
      'ndjson',
    ]
    const rows = execFileSync(program!, args, { encoding: 'utf8', env: {} }).trimEnd().split('\n')
    const values = rows.map((row) => Number(JSON.parse(row).value))
    assert.deepEqual(
      values.sort((a, b) => a - b),
      Array.from({ length: 200 }, (_, index) => index + 1),
    )
  })

test('the collector says what it is, and what it can do', () => {
  const collector = join(out, `headgate-collector-linux-${process.arch}`)
  const said = (...args: string[]) => execFileSync(collector, args, { encoding: 'utf8', env: {} })
  assert.equal(
    said('version'),
    `headgate-collector ${version} (Node 24.21.0, linux ${process.arch})\n`,
  )
  for (const command of ['run', 'check', 'fleet', 'log', 'version'])
    assert.match(said('--help'), new RegExp(`^ {2}${command} `, 'm'))
})

test('executables alone make a fleet: founded, joined, and told what to do', async (t) => {
  const broker = await Mosquitto.start(t)
  if (!broker) return
  const folder = join(await temporaryDirectory(t), 'fleet')
  const collector = [join(out, `headgate-collector-linux-${process.arch}`)]
  const agent = [executable('agent')]
  const ask = async (command: readonly string[], ...args: string[]) => {
    const { code, stdout, stderr } = await Headgate.run(t, args, { command })
    assert.equal(code, 0, stderr)
    return stdout.trim()
  }
  const cloud = await Cloud.make(t, {
    directory: await temporaryDirectory(t),
    more: { auth: undefined, fleet: { folder, broker: { port: 0 } } },
  })
  const url = `https://127.0.0.1:${cloud.port}`
  await ask(collector, 'fleet', 'init', '--dir', folder, '--url', url)
  await cloud.start({ command: collector })

  const gateway = await Gateway.make(t, {
    directory: await temporaryDirectory(t),
    broker: broker.url,
    collector: url,
    more: { fleet: { probation: '5s' } },
  })
  // The service's user owns it and gets there, and root enrols.
  mkdirSync(gateway.data)
  chmodSync(dirname(gateway.data), 0o755)
  if (process.getuid?.() === 0) chownSync(gateway.data, 65_534, 65_534)
  const token = await ask(collector, 'fleet', 'invite', 'gw-001', '--fleet', folder)
  await ask(agent, 'enrol', '--url', url, '--token', token, '--config', gateway.configFile)
  const key = statSync(join(gateway.data, 'identity', 'key.pem'))
  assert.equal(key.uid, statSync(gateway.data).uid)
  assert.equal(key.mode & 0o777, 0o600)
  const running = await gateway.start({ command: agent })
  await gateway.subscribed()
  await new Sensor(broker.url).publish(50)
  await gateway.drained(50)

  const file = join(await temporaryDirectory(t), 'document.yaml')
  const decode = [{ topic: 'plant/{device}/{metric}', format: 'json' }]
  writeFileSync(file, stringify({ source: { url: broker.url }, decode, uplink: { url } }))
  const call = ['--agent', 'gw-001', '--file', file, '--fleet', folder, '--no-wait']
  await ask(collector, 'fleet', 'push', ...call)
  await running.said(/a new configuration is applied/)
  await gateway.until(
    ({ source: { subscribed } }) => subscribed.includes('plant/+/+'),
    'the agent does as it was told',
  )
})

test("the collector's package brings unit, configuration, manual and papers", (t) => {
  const dpkg = needs(t, 'dpkg-deb')
  if (!dpkg) return
  for (const machine of ['amd64', 'arm64']) {
    const deb = join(out, `headgate-collector_${version}_${machine}.deb`)
    const paths = execFileSync(dpkg, ['--contents', deb], { encoding: 'utf8' })
    for (const path of [
      'etc/headgate/collector.yaml',
      'usr/bin/headgate-collector',
      'usr/lib/systemd/system/headgate-collector.service',
      'usr/share/man/man1/headgate-collector.1.gz',
      'usr/share/doc/headgate-collector/copyright',
      'usr/share/doc/headgate-collector/sbom.cdx.json',
    ])
      assert.match(paths, new RegExp(` \\./${path}( -> .*)?$`, 'm'))
  }
  const sums = readFileSync(join(out, 'SHA256SUMS'), 'utf8')
  assert.match(sums, new RegExp(`^[0-9a-f]{64} {2}headgate-collector_${version}_arm64\\.deb$`, 'm'))
})
