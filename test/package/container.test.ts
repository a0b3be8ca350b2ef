import assert from 'node:assert/strict'
import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { stringify } from 'yaml'
import { storeFormat } from '../../agent/outbox/format.ts'
import { keepsQueue, Mosquitto } from '../support/mosquitto.ts'
import { Cloud } from '../support/plant.ts'
import { poll } from '../support/poll.ts'
import { Sensor } from '../support/sensor.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { build, built, version } from './support/built.ts'
import { Machine } from './support/machine.ts'
import { newerPackage } from './support/newer.ts'
import { config, data, PackagedGateway, unit } from './support/packaged-gateway.ts'

const machineName = process.arch === 'arm64' ? 'arm64' : 'amd64'

/** Builds the collector's package: `npm run package` makes the agent's alone. */
async function collectorPackage(t: TestContext): Promise<string> {
  const out = await temporaryDirectory(t)
  const env = { SOURCE_DATE_EPOCH: '1767225600' }
  build('collector', ['--target', process.arch, '--level', '0', '--out', out], { env })
  return join(out, `headgate-collector_${version}_${machineName}.deb`)
}

test('the life of a package on a Debian machine', { timeout: 900_000 }, async (t: TestContext) => {
  const machine = await Machine.boot(t)
  if (!machine) return
  const broker = await Mosquitto.start(t, { lines: keepsQueue })
  if (!broker) return
  const cloud = await Cloud.make(t, { directory: await temporaryDirectory(t) })
  await cloud.start()
  const gateway = new PackagedGateway(machine)
  const sensor = new Sensor(broker.url)
  const present = built(`headgate-agent_${version}_${machineName}.deb`)
  const newer = newerPackage(t)
  const collector = await collectorPackage(t)

  let broken = false
  const step = (name: string, work: () => Promise<void>) =>
    t.test(name, async (t) => {
      if (broken) return t.skip('a step before it failed')
      broken = true
      try {
        await work()
      } catch (error) {
        t.diagnostic(await gateway.journal())
        throw error
      }
      broken = false
    })

  await step('on a full disk the installation fails in words, and can be repeated', async () => {
    const full = '/usr/lib/headgate-agent'
    await machine.ask('mkdir', '-p', full)
    await machine.ask('mount', '-t', 'tmpfs', '-o', 'size=50m', 'none', full)
    const { code, stderr } = await machine.install(present)
    assert.notEqual(code, 0)
    assert.match(stderr, /No space left on device/)
    await machine.ask('umount', full)
  })

  await step('installed, it starts nothing, and says what to do', async () => {
    const { code, stdout } = await machine.install(present)
    assert.equal(code, 0)
    assert.match(stdout, /edit \/etc\/headgate\/agent\.yaml, then: systemctl enable --now/)
    assert.equal(await gateway.property('ActiveState'), 'inactive')
    assert.equal(await gateway.property('UnitFileState'), 'disabled')
    const { mode } = statSync(machine.path(config))
    assert.equal(mode & 0o777, 0o640, 'the configuration may hold passwords')
    assert.match(await machine.ask('headgate-agent', 'check'), /good/)
  })

  await step('configured and started, it brings readings', async () => {
    await gateway.configure(broker.url, cloud.url)
    await machine.ask('systemctl', 'enable', '--now', unit)
    await gateway.subscribed()
    await sensor.publish(200)
    await gateway.delivered(sensor, cloud)
    const pid = await gateway.property('MainPID')
    const seen = await machine.read(`/proc/${pid}/status`)
    assert.match(seen, /^CapEff:\t0{16}$/m)
    assert.match(seen, /^NoNewPrivs:\t1$/m)
    assert.doesNotMatch(seen, /^Uid:\t0\t/m)
  })

  await step('killed, it comes back and has lost nothing', async () => {
    const publishing = sensor.publish(600, 200)
    const restarts = Number(await gateway.property('NRestarts'))
    await machine.ask('systemctl', 'kill', '--signal=KILL', '--kill-who=main', unit)
    await poll(
      async () => Number(await gateway.property('NRestarts')) > restarts,
      'systemd starts it again',
    )
    await gateway.subscribed()
    await publishing
    await gateway.delivered(sensor, cloud)
  })

  await step('put back from a backup, it sends nothing twice, and that is noticed', async () => {
    const archive = '/root/backup.tar'
    await cloud.kill()
    await sensor.publish(30)
    await gateway.until(({ ledger }) => ledger.buffered >= 30, 'the outbox holds them')
    await machine.ask('systemctl', 'stop', unit)
    const folders = ['etc/headgate', data.slice(1)]
    await machine.ask('tar', '--create', '--file', archive, '--directory', '/', ...folders)
    await machine.ask('systemctl', 'start', unit)
    await cloud.start()
    await sensor.publish(20)
    await gateway.delivered(sensor, cloud)

    await machine.ask('systemctl', 'stop', unit)
    await machine.ask('rm', '-r', data)
    await machine.ask('tar', '--extract', '--file', archive, '--directory', '/')
    await machine.ask('systemctl', 'start', unit)
    gateway.forgot = 20
    await sensor.publish(20)
    await gateway.delivered(sensor, cloud)
    await cloud.process.said(/was its disk put back from an image/)
  })

  await step('stuck, it is ended and comes back', async () => {
    await machine.ask('mkdir', '-p', `/run/systemd/system/${unit}.service.d`)
    await machine.write(
      `/run/systemd/system/${unit}.service.d/impatient.conf`,
      '[Service]\nWatchdogSec=2s\nTimeoutAbortSec=1s\n',
    )
    await machine.ask('systemctl', 'daemon-reload')
    await machine.ask('systemctl', 'restart', unit)
    const pid = await gateway.property('MainPID')
    await machine.ask('systemctl', 'kill', '--signal=STOP', '--kill-who=main', unit)
    await poll(async () => {
      const now = await gateway.property('MainPID')
      return now !== pid && now !== '0'
    }, 'systemd has ended it and started it again')
    assert.match(await gateway.journal(), /Watchdog timeout/)
    await machine.ask('rm', '-r', `/run/systemd/system/${unit}.service.d`)
    await machine.ask('systemctl', 'daemon-reload')
    await machine.ask('systemctl', 'restart', unit)
    await gateway.subscribed()
  })

  await step('a newer package takes the outbox over, and loses nothing', async () => {
    await cloud.kill()
    await sensor.publish(300)
    await gateway.until(({ ledger }) => ledger.buffered >= 300, 'the outbox holds them')
    const publishing = sensor.publish(300, 100)
    const { code, stderr } = await machine.install(newer)
    assert.equal(code, 0, stderr)
    await publishing
    assert.equal(await gateway.property('ActiveState'), 'active')
    assert.match(await machine.ask('headgate-agent', 'version'), /99\.0\.0/)
    assert.match(await machine.read(config), /gw-001/, 'the configuration is as it was')
    await cloud.start()
    await gateway.delivered(sensor, cloud)
  })

  await step('an older package refuses what the newer one wrote, in words', async () => {
    await cloud.kill()
    await sensor.publish(50)
    await gateway.until(({ ledger }) => ledger.buffered >= 50, 'the outbox holds them')
    const { stderr } = await machine.install(present)
    const refusal = `the outbox has format ${storeFormat + 1}, this version reads up to ${storeFormat}`
    assert.match(stderr, new RegExp(refusal))
    assert.match(await machine.ask('headgate-agent', 'version'), new RegExp(` ${version} `))
    assert.notEqual(await gateway.property('ActiveState'), 'active')
    const { code } = await machine.install(newer)
    assert.equal(code, 0)
    await machine.run('systemctl', 'restart', unit)
    await cloud.start()
    await gateway.delivered(sensor, cloud)
  })

  await step('removed, it leaves what it gathered; purged, nothing', async () => {
    await cloud.kill()
    await sensor.publish(10)
    await gateway.until(({ ledger }) => ledger.buffered >= 10, 'the outbox holds them')
    await machine.ask('dpkg', '--remove', unit)
    assert.ok(!existsSync(machine.path('/usr/bin/headgate-agent')))
    assert.ok(existsSync(machine.path(`${data}/outbox/CURRENT`)))
    assert.match(await machine.read(config), /gw-001/)

    assert.equal((await machine.install(newer)).code, 0)
    assert.equal(await gateway.property('ActiveState'), 'inactive')
    await machine.ask('systemctl', 'enable', '--now', unit)
    await cloud.start()
    await gateway.delivered(sensor, cloud)

    await machine.ask('dpkg', '--purge', unit)
    for (const gone of ['/var/lib/headgate', '/etc/headgate', '/usr/lib/headgate-agent'])
      assert.ok(!existsSync(machine.path(gone)), `${gone} is gone`)
    assert.equal((await machine.run('getent', 'passwd', unit)).code, 2, 'its user is gone')
    assert.equal(await gateway.property('LoadState'), 'not-found')
  })

  await step("the collector's package takes what the agent's sends, over a kill", async () => {
    await cloud.kill()
    const service = 'headgate-collector'
    const kept = '/var/lib/headgate/collector'
    const { code, stdout } = await machine.install(collector)
    assert.equal(code, 0)
    assert.match(stdout, /edit \/etc\/headgate\/collector\.yaml, then: systemctl enable --now/)
    const http = { host: '127.0.0.1', port: cloud.port }
    await machine.write(
      '/etc/headgate/collector.yaml',
      stringify({ data: kept, http, auth: { mode: 'open' } }),
    )
    assert.match(await machine.ask(service, 'check'), /good/)
    await machine.ask('systemctl', 'enable', '--now', service)

    assert.equal((await machine.install(present)).code, 0)
    await gateway.configure(broker.url, cloud.url)
    await machine.ask('systemctl', 'enable', '--now', unit)
    await gateway.subscribed()
    const before = sensor.published
    await sensor.publish(100)
    await machine.ask('systemctl', 'kill', '--signal=KILL', '--kill-who=main', service)
    await sensor.publish(100)
    const values = await poll(async () => {
      await machine.run(unit, 'flush')
      const args = ['log', 'cat', '--data', kept, '--format', 'ndjson']
      const rows = (await machine.ask(service, ...args)).split('\n').filter((row) => row !== '')
      return rows.length >= 200 && rows.map((row) => Number(JSON.parse(row).value))
    }, 'all is in the log')
    assert.deepEqual(
      values.sort((a, b) => a - b),
      Array.from({ length: 200 }, (_, index) => before + index + 1),
    )
    await machine.ask('dpkg', '--purge', unit, service)
    assert.ok(!existsSync(machine.path('/var/lib/headgate')))
  })
})
