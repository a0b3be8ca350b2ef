import type { TestContext } from 'node:test'
import { type Certificates, makeCertificates } from './certificates.ts'
import { FleetDesk } from './fleet-desk.ts'
import { FleetWatcher, type MemberOptions, runMember } from './fleet-member.ts'
import { keepsOverKill, keepsQueue, Mosquitto } from './mosquitto.ts'

/** Lines of mosquitto.conf that ask for a certificate. */
const withTls = ({ ca, server }: Certificates) => [
  `cafile ${ca}`,
  `certfile ${server.cert}`,
  `keyfile ${server.key}`,
  'require_certificate true',
  'use_identity_as_username true',
]

/** A plant's broker, a fleet's with TLS, a desk, and somebody who watches. */
export async function fleetPlant(t: TestContext, lines: readonly string[] = []) {
  const certificates = await makeCertificates(t)
  const broker = certificates && (await Mosquitto.start(t, { lines: keepsQueue }))
  const fleetBroker =
    broker &&
    (await Mosquitto.start(t, { lines: [...withTls(certificates), ...keepsOverKill, ...lines] }))
  if (!fleetBroker) return undefined
  const fleet = `mqtts://127.0.0.1:${fleetBroker.port}`
  const desk = new FleetDesk()
  const watcher = await FleetWatcher.open(t, fleet, certificates, desk)
  const join = (more: Partial<MemberOptions> = {}) =>
    runMember(t, { broker: broker.url, fleet, desk, certificates, ...more })
  return { broker, fleetBroker, fleet, desk, watcher, join, certificates }
}

/** A document that does what the gateway's own file does, and more. */
export function documentFor(broker: string, more: Record<string, unknown> = {}) {
  const quick = { base: '50ms', max: '250ms' }
  const { source, uplink, ...rest } = more as Record<string, object>
  return {
    source: { url: broker, retry: quick, ...source },
    decode: [{ topic: 'sensors/{device}/{metric}' }],
    uplink: { url: 'http://collector.test', retry: quick, batch: { maxAge: '0ms' }, ...uplink },
    ...rest,
  } as never
}
