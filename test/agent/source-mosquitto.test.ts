import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { openDialer } from '../../agent/source/dial.ts'
import { sourceSchema } from '../../agent/source/source.ts'
import { systemClock } from '../../shared/system.ts'
import { makeCertificates } from '../support/certificates.ts'
import { Mosquitto } from '../support/mosquitto.ts'
import { device } from '../support/publisher.ts'
import { type MemoryState, SourceLife, seededRandom } from '../support/source.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { until } from '../support/until.ts'

const quick = { base: '10ms', max: '50ms' }
const numbers = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, i) => String(from + i))

async function live(
  t: TestContext,
  config: { url: string },
  state?: MemoryState,
): Promise<SourceLife> {
  const parsed = sourceSchema.parse({ topics: ['sensors/#'], retry: quick, ...config })
  const life = await SourceLife.begin({
    config: { topics: ['sensors/#'], retry: quick, ...config },
    dialer: openDialer(parsed),
    clock: systemClock,
    random: seededRandom(),
    ...(state && { state }),
  })
  t.after(() => life.source.close())
  return life
}

/** Turns the loop until the session is subscribed. */
async function settle(life: SourceLife): Promise<void> {
  while (life.source.status().subscribed.length === 0) await life.turn()
}

for (const version of ['3.1.1', '5'] as const) {
  test(`messages come through mosquitto, MQTT ${version}`, async (t) => {
    const broker = await Mosquitto.start(t)
    if (!broker) return
    const life = await live(t, { url: broker.url, version } as never)
    await settle(life)
    const { publish } = await device(t, broker.url)
    await publish('sensors/a/t', numbers(1, 500))
    const { fresh, repeats } = await life.turns(500)
    assert.deepEqual(fresh, numbers(1, 500))
    assert.deepEqual(repeats, [])
  })

  test(`what was committed and not acknowledged comes again and is known, MQTT ${version}`, async (t) => {
    const broker = await Mosquitto.start(t)
    if (!broker) return
    const config = { url: broker.url, version } as never
    const first = await live(t, config)
    await settle(first)
    const { publish } = await device(t, broker.url)
    await publish('sensors/a/t', ['same', 'same', 'same'])
    const committed: string[] = []
    while (committed.length < 3) committed.push(...first.commit(await first.take()).fresh)
    first.crash() // Between commit and PUBACK.
    const second = await live(t, config, first.state)
    const { repeats } = await second.turns(3)
    assert.deepEqual(repeats, ['same', 'same', 'same'])
    await publish('sensors/a/t', ['same'])
    const { fresh } = await second.turns(1)
    assert.deepEqual(fresh, ['same'], 'a sensor that repeats a value is no duplicate')
  })

  test(`what is published while the agent is away comes when it is back, MQTT ${version}`, async (t) => {
    const broker = await Mosquitto.start(t)
    if (!broker) return
    const config = { url: broker.url, version } as never
    const first = await live(t, config)
    await settle(first)
    await first.source.close()
    const { publish } = await device(t, broker.url)
    await publish('sensors/a/t', numbers(1, 50))
    const second = await live(t, config, first.state)
    assert.deepEqual((await second.turns(50)).fresh, numbers(1, 50))
    assert.equal(second.source.status().sessionPresent, true)
  })

  test(`TLS with a client certificate, user and password, MQTT ${version}`, async (t) => {
    const certificates = await makeCertificates(t)
    if (!certificates) return
    const { ca, server, client } = certificates
    const broker = await Mosquitto.start(t, {
      users: { gateway: 'secret' },
      lines: [
        `cafile ${ca}`,
        `certfile ${server.cert}`,
        `keyfile ${server.key}`,
        'require_certificate true',
      ],
    })
    if (!broker) return
    const passwordFile = join(await temporaryDirectory(t), 'password')
    await writeFile(passwordFile, 'secret\n')
    const life = await live(t, {
      url: `mqtts://127.0.0.1:${broker.port}`,
      version,
      username: 'gateway',
      passwordFile,
      tls: { ca, ...client },
    } as never)
    await settle(life)
    assert.equal(life.source.publish('sensors/a/t', Buffer.from('own'), { qos: 1 }), true)
    assert.deepEqual((await life.turns(1)).fresh, ['own'])
  })
}

test('a message that several filters take comes once', async (t) => {
  const broker = await Mosquitto.start(t)
  if (!broker) return
  const life = await live(t, {
    url: broker.url,
    version: 5,
    topics: ['sensors/a/t', 'sensors/#', 'sensors/+/t'],
  } as never)
  await settle(life)
  const { publish } = await device(t, broker.url)
  await publish('sensors/a/t', ['once', 'end'])
  assert.deepEqual((await life.turns(2)).fresh, ['once', 'end'])
})

test('a broker that was killed and has lost its sessions is subscribed again', async (t) => {
  const broker = await Mosquitto.start(t)
  if (!broker) return
  const life = await live(t, { url: broker.url })
  await settle(life)
  await broker.kill()
  await until(() => life.source.status().phase !== 'connected', 'the loss is noticed')
  await broker.up()
  await life.turn() // The new session's name.
  assert.equal(life.source.status().sessionsLost, 1)
  await settle(life)
  const { publish } = await device(t, broker.url)
  await publish('sensors/a/t', ['after'])
  assert.deepEqual((await life.turns(1)).fresh, ['after'])
})

test('a broker that was killed and kept its sessions delivers what it had', async (t) => {
  const broker = await Mosquitto.start(t, {
    lines: ['persistence true', 'persistence_location %d/'],
  })
  if (!broker) return
  const life = await live(t, { url: broker.url })
  await settle(life)
  const { publish } = await device(t, broker.url)
  await publish('sensors/a/t', ['before'])
  const group = await life.take() // Never acknowledged: the connection ends first.
  life.commit(group)
  await broker.save('before')
  await broker.kill()
  await until(() => life.source.status().phase !== 'connected', 'the loss is noticed')
  life.source.acknowledge(group)
  await broker.up()
  const { repeats } = await life.turns(1)
  assert.deepEqual(repeats, ['before'])
  assert.equal(life.source.status().sessionsLost, 0)
})

test('a wrong password is explained, and tried again', async (t) => {
  const broker = await Mosquitto.start(t, { users: { gateway: 'secret' } })
  if (!broker) return
  const life = await live(t, { url: broker.url, username: 'gateway', password: 'wrong' } as never)
  await until(() => life.source.status().lastError !== undefined, 'a refusal')
  assert.equal(life.source.status().lastError!.code, 'SOURCE_REFUSED')
  assert.match(
    life.source.status().lastError!.message,
    /check source\.username and source\.password/,
  )
})

test('a certificate that nobody vouches for is explained', async (t) => {
  const certificates = await makeCertificates(t)
  if (!certificates) return
  const { server } = certificates
  const broker = await Mosquitto.start(t, {
    lines: [`certfile ${server.cert}`, `keyfile ${server.key}`],
  })
  if (!broker) return
  const life = await live(t, { url: `mqtts://127.0.0.1:${broker.port}` })
  await until(() => life.source.status().lastError !== undefined, 'a failed handshake')
  assert.match(life.source.status().lastError!.message, /set source\.tls\.ca/)
})

test('a certificate for another name is explained, and taken with servername', async (t) => {
  const certificates = await makeCertificates(t, 'DNS:broker.plant')
  if (!certificates) return
  const { ca, server } = certificates
  const broker = await Mosquitto.start(t, {
    lines: [`certfile ${server.cert}`, `keyfile ${server.key}`],
  })
  if (!broker) return
  const url = `mqtts://127.0.0.1:${broker.port}`
  const refused = await live(t, { url, tls: { ca } } as never)
  await until(() => refused.source.status().lastError !== undefined, 'a failed handshake')
  assert.match(refused.source.status().lastError!.message, /servername/)
  await refused.source.close()
  const life = await live(t, { url, tls: { ca, servername: 'broker.plant' } } as never)
  await settle(life)
})
