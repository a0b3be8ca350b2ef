import assert from 'node:assert/strict'
import { test } from 'node:test'
import { TestFleet } from '../support/fleet.ts'
import { Mosquitto } from '../support/mosquitto.ts'
import { Gateway } from '../support/plant.ts'
import { Headgate } from '../support/process.ts'
import { Sensor } from '../support/sensor.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { executable } from './support/built.ts'

test('the executable joins a fleet, and sends by the certificate that it got', async (t) => {
  const broker = await Mosquitto.start(t)
  if (!broker) return
  const fleet = await TestFleet.start(t)
  const gateway = await Gateway.make(t, {
    directory: await temporaryDirectory(t),
    broker: broker.url,
    collector: fleet.url,
  })
  const command = [executable('agent')]
  const call = ['--url', fleet.url, '--token', await fleet.invite('gw-001')]
  const enrolled = await Headgate.run(t, ['enrol', ...call, '--config', gateway.configFile], {
    command,
  })
  assert.equal(enrolled.code, 0, enrolled.stderr)
  assert.match(enrolled.stdout, /^enrolled as gw-001: /)

  const agent = await gateway.start({ command })
  await gateway.subscribed()
  await new Sensor(broker.url).publish(50)
  await gateway.drained(50)
  assert.equal((await agent.stop()).code, 0)
})
