import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { SimReport } from '../../firmware-sim/sim-command.ts'
import { makeCertificates } from '../support/certificates.ts'
import { Mosquitto } from '../support/mosquitto.ts'
import { until } from '../support/until.ts'
import { Running, run } from './command.ts'
import { Subscriber } from './subscriber.ts'

test('QoS 1 is complete over a restart of the broker', async (t) => {
  const lines = ['persistence true', 'persistence_location %d/', 'max_queued_messages 0']
  const broker = await Mosquitto.start(t, { lines })
  if (!broker) return
  const subscriber = await Subscriber.open(t, broker.url, { clientId: 'gw', clean: false })
  const rows = ['--seed', '1', '--rows', '100000', '--speed', 'max']
  const sim = new Running(t, ['sim', '--broker', broker.url, '--json', ...rows])
  await until(() => subscriber.received.length > 1000, 'a run under way')
  await broker.kill('SIGTERM')
  await until(() => sim.stderr.includes('trying again'), 'the broker is missed')
  await broker.up()
  assert.equal(await sim.ended(), 0)
  const { sent, acknowledged } = JSON.parse(sim.stdout) as SimReport
  assert.deepEqual([sent, acknowledged], [100_000, 100_000])
  const { received } = subscriber
  await until(() => received.length >= sent, 'as many messages')
  await until(
    () => new Set(received.map(({ topic, payload }) => topic + payload)).size === sent,
    'every message',
  )
})

test('TLS and a password are used, and asked for in one line', async (t) => {
  const certificates = await makeCertificates(t, 'DNS:localhost,IP:127.0.0.1')
  if (!certificates) return
  const { cert, key } = certificates.server
  const broker = await Mosquitto.start(t, {
    lines: [`certfile ${cert}`, `keyfile ${key}`],
    users: { sim: 'secret' },
  })
  if (!broker) return
  const sim = (host: string, args: string[], env?: Record<string, string>) => {
    const url = `mqtts://${host}:${broker.port}`
    const rows = ['--rows', '10', '--speed', 'max', '--json']
    return run(t, ['sim', '--broker', url, ...rows, ...args], env)
  }
  const ca = ['--ca', certificates.ca]

  for (const host of ['localhost', '127.0.0.1']) {
    const { code, stdout } = await sim(host, [...ca, '--username', 'sim'], {
      HEADGATE_MQTT_PASSWORD: 'secret',
    })
    assert.equal(code, 0)
    assert.equal((JSON.parse(stdout) as SimReport).acknowledged, 10)
  }
  const refusals: [string[], RegExp][] = [
    [[...ca, '--username', 'sim', '--password', 'wrong'], /check --username and --password/],
    [ca, /check --username and --password/],
    [['--username', 'sim', '--password', 'secret'], /certificate does not hold.*check --ca/],
  ]
  for (const [args, message] of refusals) {
    const { code, stderr } = await sim('localhost', args)
    assert.equal(code, 1)
    assert.match(stderr, message)
    assert.equal(stderr.trimEnd().split('\n').length, 1)
  }
})
