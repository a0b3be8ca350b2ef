import assert from 'node:assert/strict'
import { copyFile, mkdir, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { stringify } from 'yaml'
import { makeCertificates } from '../support/certificates.ts'
import { FleetDesk } from '../support/fleet-desk.ts'
import { freePort } from '../support/free-port.ts'
import { Headgate } from '../support/process.ts'
import { temporaryDirectory } from '../support/temporary.ts'

test('an agent whose identity is damaged runs its file, and takes part once it is repaired', async (t) => {
  const certificates = await makeCertificates(t)
  if (!certificates) return
  const folder = await temporaryDirectory(t)
  const at = (...names: string[]) => join(folder, ...names)
  const nowhere = `127.0.0.1:${await freePort()}`
  const identity = {
    agent: 'gw-001',
    labels: {},
    fleetBroker: `mqtts://${nowhere}`,
    collector: `https://${nowhere}`,
  }
  await mkdir(at('gw', 'identity'), { recursive: true })
  await copyFile(certificates.ca, at('gw', 'identity', 'ca.pem'))
  await copyFile(certificates.client.cert, at('gw', 'identity', 'certificate.pem'))
  await copyFile(certificates.client.key, at('gw', 'identity', 'key.pem'))
  const { publicKey } = new FleetDesk().keys
  await writeFile(
    at('gw', 'identity', 'config-key.pem'),
    publicKey.export({ type: 'spki', format: 'pem' }),
  )
  await writeFile(at('gw', 'identity', 'identity.json'), JSON.stringify(identity).slice(0, 30))
  await writeFile(
    at('agent.yaml'),
    stringify({
      agent: 'gw-001',
      data: './gw',
      source: { url: `mqtt://${nowhere}` },
      decode: [{ topic: 'sensors/{device}/{metric}' }],
      uplink: { url: `http://${nowhere}` },
    }),
  )
  const agent = Headgate.start(t, ['agent', 'run', '--config', at('agent.yaml')])
  await agent.said(/no part in the fleet: .*the identity cannot be used/)
  await agent.said(/agent is running/)
  await writeFile(at('new.json'), JSON.stringify(identity))
  await rename(at('new.json'), at('gw', 'identity', 'identity.json'))
  await agent.said(/section":"fleet"|fleet\.url/)
  assert.equal(agent.stderr.match(/no part in the fleet/g)!.length, 1)
  assert.equal((await agent.stop()).code, 0)
})
