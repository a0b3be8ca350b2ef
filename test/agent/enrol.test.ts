import assert from 'node:assert/strict'
import { createHash, X509Certificate } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { pino } from 'pino'
import { keepIdentity } from '../../agent/enrol/keeper.ts'
import { formatInvitation } from '../../shared/fleet/invitation.ts'
import { systemRandom } from '../../shared/system.ts'
import { makeCertificates } from '../support/certificates.ts'
import { cleanUp } from '../support/clean-up.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { until } from '../support/until.ts'

test('whatever comes in place of an enrolment, it is tried again', async (t) => {
  const certificates = await makeCertificates(t)
  if (!certificates) return
  const [ca, cert, key] = await Promise.all(
    [certificates.ca, certificates.server.cert, certificates.server.key].map((file) =>
      readFile(file, 'utf8'),
    ),
  )
  const authority = { ca }
  const papers = { agent: 'gw-001', labels: {}, fleetBroker: 'mqtts://127.0.0.1', ca }
  const mixed = { ...papers, certificate: cert, configKey: '' }
  const rounds: [answers: Record<string, unknown>, told: RegExp][] = [
    [{ ca: '<html>Log in to the hotel' }, /is no collector/],
    [{ ca: {} }, /is no collector/],
    [{ ca: { ca: 'none' } }, /is no collector/],
    [{ ca: authority, enrol: {} }, /is no collector/],
    [{ ca: authority, enrol: { ...mixed, fleetBroker: 'none' } }, /is no coll/],
    [{ ca: authority, enrol: { ...papers, certificate: 'none', configKey: '' } }, /is no coll/],
    [{ ca: authority, enrol: mixed }, /not for the g/],
  ]
  let answers: Record<string, unknown> = {}
  const server = createServer({ cert: cert!, key: key! }, ({ url }, response) => {
    const answer = answers[url!.replace('/v1/fleet/', '')]
    response.end(typeof answer === 'string' ? answer : JSON.stringify(answer))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  cleanUp(t, () => server.close())

  const folder = join(await temporaryDirectory(t), 'identity')
  const lines: string[] = []
  const clock = new ManualClock()
  const stop = new AbortController()
  const pin = createHash('sha256').update(new X509Certificate(ca!).raw).digest()
  const keeping = keepIdentity(
    {
      agent: 'gw-001',
      folder,
      enrol: {
        url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
        token: formatInvitation({ secret: new Uint8Array(16), pin }),
      },
      clock,
      random: systemRandom,
      log: pino({ level: 'warn' }, { write: (line: string) => lines.push(line) }),
    },
    stop.signal,
  )
  let ended = false
  const end = keeping.finally(() => {
    ended = true
  })
  const told = async (pattern: RegExp) => {
    const before = lines.length
    await clock.advance(600_000)
    await until(() => ended || (lines.length > before && clock.pending > 0), 'the next try')
    assert.equal(ended, false)
    assert.match(lines.at(-1)!, pattern)
  }
  await until(() => ended || clock.pending > 0, 'the first try')
  for (const [given, pattern] of rounds) {
    answers = given
    await told(pattern)
  }
  await writeFile(join(folder, 'key.pem'), 'torn')
  await told(/the key is damaged: remove/)
  await mkdir(join(folder, 'certificate.pem')) // Any other trouble of the disk.
  await told(/EISDIR/)
  stop.abort()
  await end
})
