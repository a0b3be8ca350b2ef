import assert from 'node:assert/strict'
import { once } from 'node:events'
import { globSync, readFileSync } from 'node:fs'
import { copyFile, mkdir } from 'node:fs/promises'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { dirname, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { type Certificates, makeCertificates } from '../support/certificates.ts'
import { SmallDisk } from '../support/file-systems.ts'
import { keepsQueue, Mosquitto } from '../support/mosquitto.ts'
import { absent, needs } from '../support/needs.ts'
import { Cloud, Gateway } from '../support/plant.ts'
import { Sensor } from '../support/sensor.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { executable } from './support/built.ts'

const nowhere = 'http://127.0.0.1:1'

/** What runs a program with mounts of its own, and becomes it; undefined when the test was skipped. */
function mounts(t: TestContext, ...lines: string[]): readonly string[] | undefined {
  if (process.getuid?.() !== 0) {
    t.skip('needs root, to mount')
    return undefined
  }
  const unshare = needs(t, 'unshare')
  if (!unshare) return undefined
  return [unshare, '--mount', '/bin/sh', '-ec', `${lines.join('\n')}\nexec "$@"`, 'sh']
}

async function gatewayFor(t: TestContext, broker = 'mqtt://127.0.0.1:1', collector = nowhere) {
  return Gateway.make(t, { directory: await temporaryDirectory(t), broker, collector })
}

/** What a collector's address answers with TLS, and nothing behind it. */
async function tlsCollector(
  t: TestContext,
  { server: { cert, key } }: Certificates,
  onRequest = () => {},
): Promise<string> {
  const files = { cert: readFileSync(cert), key: readFileSync(key) }
  const server = createServer(files, ({ socket }) => {
    onRequest()
    socket.destroy()
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  t.after(() => server.close())
  return `https://127.0.0.1:${(server.address() as AddressInfo).port}`
}

test('where temporary files may not be run, the agent loads its native part from its data folder', async (t) => {
  const TMPDIR = await temporaryDirectory(t)
  const through = mounts(t, `mount -t tmpfs -o noexec none ${TMPDIR}`)
  if (!through) return
  const gateway = await gatewayFor(t)
  const agent = await gateway.start({ command: [executable('agent')], through, env: { TMPDIR } })
  assert.equal((await agent.stop()).code, 0)
})

test('where nothing may be run, the agent says what to set', async (t) => {
  const TMPDIR = await temporaryDirectory(t)
  const alone = join(await temporaryDirectory(t), 'headgate-agent')
  await copyFile(executable('agent'), alone)
  const gateway = await gatewayFor(t)
  await mkdir(gateway.data)
  const through = mounts(
    t,
    `for folder in ${TMPDIR} ${gateway.data} /run /var/lib; do mount -t tmpfs -o noexec none $folder; done`,
    `mount --bind -o ro ${dirname(alone)} ${dirname(alone)}`,
    `mount -o remount,bind,ro ${dirname(alone)}`,
  )
  if (!through) return
  const agent = gateway.launch({ command: [alone], through, env: { TMPDIR } })
  assert.equal((await agent.ended()).code, 1)
  assert.match(agent.stderr, /native part cannot be loaded from any folder .*: set TMPDIR to one/)
})

test('a root that is read-only is no hindrance, and a data folder there is named', async (t) => {
  const gateway = await gatewayFor(t)
  await mkdir(gateway.data)
  const readOnly = ['mount -o remount,bind,ro /']
  const good = mounts(t, `mount -t tmpfs none ${gateway.data}`, ...readOnly)
  const bad = mounts(t, ...readOnly)
  if (!good || !bad) return
  const command = [executable('agent')]
  const agent = await gateway.start({ command, through: good })
  assert.equal((await agent.stop()).code, 0)

  const refused = gateway.launch({ command, through: bad })
  assert.equal((await refused.ended()).code, 1)
  assert.match(refused.stderr, /^headgate-agent: .*data: .*(EROFS|read-only)/m)
})

test('on a full disk the agent waits, and begins once there is room', async (t) => {
  const disk = await SmallDisk.make(t, 8)
  if (!disk) return
  const broker = await Mosquitto.start(t, { lines: keepsQueue })
  if (!broker) return
  const cloud = await Cloud.make(t, { directory: await temporaryDirectory(t) })
  await cloud.start()
  const gateway = await Gateway.make(t, {
    directory: disk.directory,
    broker: broker.url,
    collector: cloud.url,
  })
  await disk.fill(0)
  const agent = gateway.launch({ command: [executable('agent')] })
  await agent.said(/no space|full|ENOSPC/i)
  await disk.free()
  await gateway.subscribed()
  const sensor = new Sensor(broker.url)
  await sensor.publish(50)
  await gateway.drained(50)
})

test('a collector whose certificate nobody here vouches for is named, and readings are kept', async (t) => {
  const certificates = await makeCertificates(t)
  if (!certificates) return
  const broker = await Mosquitto.start(t)
  if (!broker) return
  const collector = await tlsCollector(t, certificates)
  const gateway = await gatewayFor(t, broker.url, collector)
  // Not even the system's authorities are there: the ones in the executable do.
  const through = mounts(t, 'mount -t tmpfs none /etc/ssl')
  if (!through) return
  const agent = await gateway.start({ command: [executable('agent')], through })
  await gateway.subscribed()
  await new Sensor(broker.url).publish(10)
  await agent.said(/not forwarded, kept: .*certificate.*uplink\.ca/)
  await gateway.until(({ ledger }) => ledger.buffered === 10, 'the outbox holds them')
})

test('an authority that update-ca-certificates has added is trusted', async (t) => {
  const certificates = await makeCertificates(t)
  if (!certificates) return
  const took = Promise.withResolvers<void>()
  const collector = await tlsCollector(t, certificates, took.resolve)
  const broker = await Mosquitto.start(t)
  if (!broker) return
  const gateway = await gatewayFor(t, broker.url, collector)
  const through = mounts(
    t,
    'mount -t tmpfs none /etc/ssl',
    'mkdir /etc/ssl/certs',
    `cp ${certificates.ca} /etc/ssl/certs/plant.pem`,
    'unset NODE_EXTRA_CA_CERTS SSL_CERT_FILE SSL_CERT_DIR',
  )
  if (!through) return
  await gateway.start({ command: [executable('agent')], through })
  await gateway.subscribed()
  await new Sensor(broker.url).publish(1)
  await took.promise
})

test('an authority that is missing is named at the start', async (t) => {
  const gateway = await Gateway.make(t, {
    directory: await temporaryDirectory(t),
    broker: 'mqtt://127.0.0.1:1',
    collector: 'https://127.0.0.1:1',
    uplink: { ca: './missing.pem' },
  })
  const agent = gateway.launch({ command: [executable('agent')] })
  assert.equal((await agent.ended()).code, 1)
  assert.match(agent.stderr, /^headgate-agent: uplink\.ca: .*missing\.pem/m)
})

/** What makes a program believe that it is 1970; undefined when the test was skipped. */
function in1970(t: TestContext): Record<string, string> | undefined {
  const [library] = globSync('/usr/lib/*/faketime/libfaketime.so.1')
  if (!library) {
    absent(t, 'needs libfaketime: apt-get install faketime')
    return undefined
  }
  return {
    LD_PRELOAD: library,
    FAKETIME: '@1970-01-01 00:00:10',
    FAKETIME_DONT_FAKE_MONOTONIC: '1',
  }
}

test('with the clock at 1970 no certificate is valid yet: the clock is named, and readings are kept', async (t) => {
  const env = in1970(t)
  const certificates = await makeCertificates(t)
  if (!env || !certificates) return
  const broker = await Mosquitto.start(t)
  if (!broker) return
  const collector = await tlsCollector(t, certificates)
  const gateway = await Gateway.make(t, {
    directory: await temporaryDirectory(t),
    broker: broker.url,
    collector,
    uplink: { ca: certificates.ca },
  })
  const agent = await gateway.start({ command: [executable('agent')], env })
  await gateway.subscribed()
  await new Sensor(broker.url).publish(10)
  await agent.said(/not forwarded, kept: .*certificate.*clock/)
  await gateway.until(({ ledger }) => ledger.buffered === 10, 'the outbox holds them')
})

test('with the clock at 1970 readings are kept and forwarded', async (t) => {
  const env = in1970(t)
  if (!env) return
  const broker = await Mosquitto.start(t)
  if (!broker) return
  const cloud = await Cloud.make(t, { directory: await temporaryDirectory(t) })
  await cloud.start()
  const gateway = await gatewayFor(t, broker.url, cloud.url)
  const agent = await gateway.start({
    command: [executable('agent')],
    env,
  })
  await gateway.subscribed()
  await new Sensor(broker.url).publish(20)
  await gateway.drained(20)
  assert.equal((await agent.stop()).code, 0)
  assert.equal((await cloud.readings()).length, 20)
})
