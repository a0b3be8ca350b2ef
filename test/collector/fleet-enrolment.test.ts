import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash, createPrivateKey, generateKeyPairSync, X509Certificate } from 'node:crypto'
import {
  chmod,
  chown,
  mkdir,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { enrol, refresh, renew } from '../../agent/enrol/enrol.ts'
import { identityFolder, readIdentity } from '../../agent/enrol/identity.ts'
import { keepIdentity } from '../../agent/enrol/keeper.ts'
import { certificateRequest } from '../../agent/enrol/request.ts'
import { openHttpLink } from '../../agent/uplink/http.ts'
import { initFleet, readCollectorFiles } from '../../collector/fleet/files.ts'
import { formatInvitation, parseInvitation } from '../../shared/fleet/invitation.ts'
import { systemRandom } from '../../shared/system.ts'
import { TestAgent } from '../support/batches.ts'
import { makeCertificates } from '../support/certificates.ts'
import { cleanUp } from '../support/clean-up.ts'
import { type Gateway, TestFleet } from '../support/fleet.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { absent, needs } from '../support/needs.ts'
import { Headgate } from '../support/process.ts'
import { silentLog } from '../support/silent-log.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { until } from '../support/until.ts'

/** Sends one batch as a gateway's agent does. */
async function sendBatch(
  fleet: TestFleet,
  gateway: Gateway,
  agent = new TestAgent({ name: gateway.name }),
) {
  const link = openHttpLink({ url: fleet.url, identity: identityFolder(gateway.data) })
  try {
    const answer = await link.post(
      {
        path: '/v1/batches',
        headers: { 'content-type': 'application/cbor', 'content-encoding': 'gzip' },
        body: agent.readings(3).body('gzip'),
        timeoutMs: 5_000,
      },
      AbortSignal.timeout(10_000),
    )
    return { status: answer.status, ...JSON.parse(Buffer.from(answer.body).toString()) }
  } finally {
    await link.close()
  }
}

test('a fleet’s private keys are its owner’s only, and a second fleet does not overwrite it', async (t) => {
  const folder = join(await temporaryDirectory(t), 'fleet')
  const make = () =>
    initFleet({ folder, url: 'https://c.example:7443', hosts: [], manager: 'a', nowMs: Date.now() })
  await make()
  const modes = new Map<string, string>()
  for (const entry of await readdir(folder, { recursive: true })) {
    const { mode } = await stat(join(folder, entry))
    modes.set(entry, (mode & 0o777).toString(8))
  }
  for (const key of [
    'collector/ca-key.pem',
    'collector/server-key.pem',
    'manager/key.pem',
    'manager/config-key.pem',
  ])
    assert.equal(modes.get(key), '600', key)
  assert.equal(modes.get('collector'), '700')
  const before = await readFile(join(folder, 'collector/ca-key.pem'))
  await assert.rejects(make(), { name: 'UserError', message: /there already/ })
  assert.deepEqual(await readFile(join(folder, 'collector/ca-key.pem')), before)
})

test('openssl agrees with our certificate requests, and with what an authority of one’s own signs', async (t) => {
  const openssl = needs(t, 'openssl')
  const certificates = await makeCertificates(t)
  if (!openssl || !certificates) return
  const folder = await temporaryDirectory(t)
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const request = certificateRequest(privateKey, 'gw-001')
  await writeFile(join(folder, 'request.pem'), request)
  const run = (...args: string[]) => execFileSync(openssl, args, { cwd: folder, encoding: 'utf8' })
  assert.match(run('req', '-in', 'request.pem', '-noout', '-verify', '-subject'), /CN = ?gw-001/)

  const [certificate, key] = await Promise.all(
    [certificates.ca, certificates.ca.replace('ca.pem', 'ca.key')].map((file) =>
      readFile(file, 'utf8'),
    ),
  )
  await initFleet({
    folder: join(folder, 'fleet'),
    url: 'https://c.example:7443',
    hosts: [],
    manager: 'alice',
    existing: { certificate: certificate!, key: key! },
    nowMs: Date.now(),
  })
  const { authority } = await readCollectorFiles(join(folder, 'fleet'), Date.now())
  const { serial } = await authority.make({
    commonName: 'x',
    lifetimeMs: 60_000,
    nowMs: Date.now(),
  })
  const list = await authority.revocationList([{ serial, atMs: Date.now() }], Date.now(), 60_000)
  await writeFile(join(folder, 'crl.pem'), list)
  const ca = join(folder, 'fleet/ca.pem')
  assert.match(
    run(
      'verify',
      '-CAfile',
      ca,
      join(folder, 'fleet/collector/server.pem'),
      join(folder, 'fleet/manager/certificate.pem'),
    ),
    /OK\n.*OK/,
  )
  assert.match(
    run('crl', '-in', 'crl.pem', '-CAfile', ca, '-noout', '-text'),
    new RegExp(`Serial Number: 0?${serial}`, 'i'),
  )
})

test('a gateway enrols once, sends under its own name only, and reads nothing', async (t) => {
  const fleet = await TestFleet.start(t)
  const gateway = await fleet.enrol('gw-001', { group: 'boilers' })
  const { mode } = await stat(join(identityFolder(gateway.data), 'key.pem'))
  assert.equal((mode & 0o777).toString(8), '600')
  assert.equal((await sendBatch(fleet, gateway)).code, 'accepted')

  const other = await sendBatch(fleet, gateway, new TestAgent({ name: 'gw-002' }))
  assert.equal(other.status, 403)
  assert.equal(other.code, 'agent')
  const { records } = (await fleet.collector.log.statistics()).readings
  assert.equal(records, 3)
})

test('without a certificate, or with one of another authority, nobody gets in', async (t) => {
  const fleet = await TestFleet.start(t)
  const stranger = await TestFleet.start(t)
  const gateway = await stranger.enrol('gw-001')
  await fleet.enrol('gw-001')
  // The stranger's certificate bears the right name; only the authority is another.
  const foreign = { ...gateway, data: gateway.data }
  const link = openHttpLink({
    url: fleet.url,
    identity: identityFolder(foreign.data),
    ca: join(fleet.folder, 'fleet/ca.pem'),
  })
  t.after(() => link.close())
  const body = new TestAgent().readings(1).body('gzip')
  const headers = { 'content-type': 'application/cbor', 'content-encoding': 'gzip' }
  const { status } = await link.post(
    { path: '/v1/batches', headers, body, timeoutMs: 5_000 },
    AbortSignal.timeout(9_000),
  )
  assert.equal(status, 401)
  const bare = openHttpLink({ url: fleet.url, ca: join(fleet.folder, 'fleet/ca.pem') })
  t.after(() => bare.close())
  for (const path of ['/v1/batches', '/v1/streams', '/v1/fleet/agents', '/metrics']) {
    const answer = await bare.post(
      { path, headers, body, timeoutMs: 5_000 },
      AbortSignal.timeout(9_000),
    )
    assert.equal(answer.status, 401, path)
  }
  assert.equal((await fleet.collector.log.statistics()).readings.records, 0)
})

test('a token works once: not for another gateway, not late, not where it is not from, and all of it is audited', async (t) => {
  const fleet = await TestFleet.start(t)
  const data = await temporaryDirectory(t)
  const token = await fleet.invite('gw-001')
  const to = (folder: string, given = token, url = fleet.url) =>
    enrol({ url, token: given, folder: join(data, folder) })
  await to('first')
  await assert.rejects(to('second'), /unknown, or was used/)
  await assert.rejects(to('first'), /unknown, or was used/, 'a replay of the same gateway')

  const late = await fleet.invite('gw-002', {}, 1_000)
  const { hash } = JSON.parse((await fleet.journal()).trim().split('\n').at(-1)!).fact
  assert.equal(hash, createHash('sha256').update(parseInvitation(late)!.secret).digest('hex'))
  while (
    Date.now() <
    Date.parse(JSON.parse((await fleet.journal()).trim().split('\n').at(-1)!).at) + 1_100
  )
    await new Promise((resolve) => setImmediate(resolve))
  await assert.rejects(to('late', late), /expired/)

  const stranger = await TestFleet.start(t)
  const foreign = await stranger.invite('gw-001')
  await assert.rejects(to('foreign', foreign), /not the collector that the token is from/)

  const refused = (await fleet.journal())
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line).fact)
    .filter(({ act }) => act === 'refuse')
    .map(({ why }) => why)
  assert.deepEqual(refused, ['token', 'token', 'token_expired'])
  assert.ok(!(await fleet.journal()).includes(token.split('.')[1]!), 'no token at rest')
})

test('root enrols as whoever owns the data folder, and follows no link that they have put there', async (t) => {
  if (process.getuid?.() !== 0)
    return absent(t, 'needs root, for only root enrols for somebody else')
  const fleet = await TestFleet.start(t)
  const nobody = 65_534
  const folder = await temporaryDirectory(t)
  await chmod(folder, 0o755)
  const [data, victim] = [join(folder, 'data'), join(folder, 'victim')]
  await mkdir(join(data, 'identity'), { recursive: true })
  await writeFile(victim, "root's own")
  const links = ['ca.pem.new', 'config-key.pem.new', 'other']
  for (const name of links) await symlink(victim, join(data, 'identity', name))
  for (const path of [data, join(data, 'identity')]) await chown(path, nobody, nobody)
  const run = (token: string) =>
    Headgate.run(t, ['agent', 'enrol', '--url', fleet.url, '--token', token, '--data', data])
  const { code, stderr } = await run(await fleet.invite('gw-001'))
  assert.equal(code, 1)
  assert.match(stderr, /^headgate: .*ca\.pem\.new: cannot write \(EACCES\): call it as [^\n]*\n$/)
  for (const name of links) await rm(join(data, 'identity', name), { force: true })
  const { stdout } = await run(await fleet.invite('gw-001'))
  assert.match(stdout, /enrolled as gw-001/)
  for (const name of await readdir(join(data, 'identity'))) {
    const { uid, mode } = await stat(join(data, 'identity', name))
    assert.deepEqual([uid, mode & 0o777], [nobody, 0o600], name)
  }
  assert.equal(await readFile(victim, 'utf8'), "root's own")
  assert.equal((await stat(victim)).uid, 0)
})

test('an invitation ends with revocation, and with an enrolment by another one', async (t) => {
  const fleet = await TestFleet.start(t)
  const data = await temporaryDirectory(t)
  const to = (folder: string, token: string) =>
    enrol({ url: fleet.url, token, folder: join(data, folder) })
  const withdrawn = await fleet.invite('gw-001')
  await fleet.client.revoke('gw-001')
  await assert.rejects(to('a', withdrawn), /unknown, or was used/)
  const lost = await fleet.invite('gw-001')
  assert.equal(await to('b', await fleet.invite('gw-001')), 'gw-001')
  await assert.rejects(to('c', lost), /unknown, or was used/)
  await assert.rejects(fleet.client.revoke('gw-009'), /no agent gw-009/)
})

test('of two gateways that race for one token exactly one gets in', async (t) => {
  const fleet = await TestFleet.start(t)
  const data = await temporaryDirectory(t)
  const token = await fleet.invite('gw-001')
  const tries = await Promise.allSettled(
    ['a', 'b', 'c', 'd'].map((name) => enrol({ url: fleet.url, token, folder: join(data, name) })),
  )
  assert.equal(tries.filter(({ status }) => status === 'fulfilled').length, 1)
  const refused = (await fleet.journal()).match(/"act":"refuse".*"why":"token(_taken)?"/g)
  assert.equal(refused?.length, 3, 'each that lost is written down')
})

test('a token of another fleet is refused, and that is written down, whoever sends it past its own check', async (t) => {
  const fleet = await TestFleet.start(t)
  const stranger = await TestFleet.start(t)
  const { secret } = parseInvitation(await stranger.invite('gw-001'))!
  const { pin } = parseInvitation(await fleet.invite('gw-001'))!
  const folder = join(await temporaryDirectory(t), 'identity')
  const token = formatInvitation({ secret, pin })
  await assert.rejects(enrol({ url: fleet.url, token, folder }), /unknown, or was used/)
  assert.match(await fleet.journal(), /"act":"refuse","what":"enrol","why":"token"/)
})

test('a gateway whose first answer was lost gets in with the same key', async (t) => {
  const fleet = await TestFleet.start(t)
  const token = await fleet.invite('gw-001')
  const folder = join(await temporaryDirectory(t), 'identity')
  const secret = Buffer.from(parseInvitation(token)!.secret).toString('base64url')
  const { gatewayKey } = await import('../../agent/enrol/identity.ts')
  const request = certificateRequest(await gatewayKey(folder), 'gw-001')
  const { Agent, request: ask } = await import('undici')
  const dispatcher = new Agent({ connect: { ca: fleet.files.ca } })
  t.after(() => dispatcher.destroy())
  const lost = await ask(`${fleet.url}/v1/fleet/enrol`, {
    method: 'POST',
    body: JSON.stringify({ token: secret, request }),
    dispatcher,
  })
  assert.equal(lost.statusCode, 200)
  await lost.body.dump()
  assert.equal(await enrol({ url: fleet.url, token, folder }), 'gw-001')
})

test('a certificate is renewed with overlap, for the same key, and an open link goes over to it', async (t) => {
  const fleet = await TestFleet.start(t, 'certificates: 1m')
  const gateway = await fleet.enrol('gw-001')
  const folder = identityFolder(gateway.data)
  const trusted = () =>
    Promise.all(
      ['ca.pem', 'config-key.pem'].map((name) => stat(join(folder, name)).then(({ ino }) => ino)),
    )
  const before = { ...(await readIdentity(folder))!, trusted: await trusted() }
  await assert.rejects(renew(fleet.url, undefined, folder, 'gw-001'), /still new/)
  const agent = new TestAgent({ name: 'gw-001' })
  const link = openHttpLink({ url: fleet.url, identity: folder })
  t.after(() => link.close())
  const post = () =>
    link.post(
      {
        path: '/v1/batches',
        headers: { 'content-type': 'application/cbor', 'content-encoding': 'gzip' },
        body: agent.readings(2).body('gzip'),
        timeoutMs: 5_000,
      },
      AbortSignal.timeout(9_000),
    )
  assert.equal((await post()).status, 200)
  t.mock.timers.enable({ apis: ['Date'], now: Date.now() + 30_000 })
  await renew(fleet.url, undefined, folder, 'gw-001')
  const after = (await readIdentity(folder))!.certificate
  assert.notEqual(after.serialNumber, before.certificate.serialNumber)
  assert.deepEqual(
    after.publicKey.export({ type: 'spki', format: 'der' }),
    before.certificate.publicKey.export({ type: 'spki', format: 'der' }),
  )
  assert.equal((await post()).status, 200)
  assert.deepEqual(await trusted(), before.trusted, 'whom it believes stays as it was')
  // The old one still counts until it ends: a gateway that was cut off in the middle is not lost.
  assert.equal((await sendBatch(fleet, gateway)).status, 200)
})

test('an agent renews its certificate by itself once most of its life is over, and not before', async (t) => {
  const hourMs = 3_600_000
  const fleet = await TestFleet.start(t, 'certificates: 1d')
  const { data } = await fleet.enrol('gw-001')
  const folder = identityFolder(data)
  const serial = async () => (await readIdentity(folder))!.certificate.serialNumber
  const first = await serial()
  const startMs = Date.now()
  const clock = new ManualClock(startMs)
  const stop = new AbortController()
  const keeping = keepIdentity(
    {
      ...{ agent: 'gw-001', folder, enrol: undefined },
      clock,
      random: systemRandom,
      log: silentLog,
    },
    stop.signal,
  )
  cleanUp(t, async () => {
    stop.abort()
    await keeping
  })
  const look = async (hours: number) => {
    await until(() => clock.pending > 0, 'it waits')
    clock.setWall(startMs + hours * hourMs)
    await clock.advance(900_000)
    await until(() => clock.pending > 0, 'it has looked')
  }
  for (const hours of [1, 13]) await look(hours)
  assert.equal(await serial(), first)
  t.mock.timers.enable({ apis: ['Date'], now: startMs + 15 * hourMs })
  await look(15)
  assert.notEqual(await serial(), first)
})

test('a revoked gateway is refused at once, on the connection that it has open too', async (t) => {
  const fleet = await TestFleet.start(t)
  const gateway = await fleet.enrol('gw-001')
  const agent = new TestAgent({ name: 'gw-001' })
  const link = openHttpLink({ url: fleet.url, identity: identityFolder(gateway.data) })
  t.after(() => link.close())
  const post = () =>
    link.post(
      {
        path: '/v1/batches',
        headers: { 'content-type': 'application/cbor', 'content-encoding': 'gzip' },
        body: agent.readings(2).body('gzip'),
        timeoutMs: 5_000,
      },
      AbortSignal.timeout(9_000),
    )
  assert.equal((await post()).status, 200)
  await fleet.client.revoke('gw-001')
  // The open connection was ended; the next one is refused.
  const status = await post().then(
    (answer) => answer.status,
    () => 0,
  )
  assert.notEqual(status, 200)
  assert.equal((await post()).status, 403)
  await assert.rejects(
    renew(fleet.url, undefined, identityFolder(gateway.data), 'gw-001'),
    /revoked/,
  )

  await fleet.down()
  await fleet.up()
  assert.equal(
    (await sendBatch(fleet, gateway)).status,
    403,
    'after a restart of the collector too',
  )

  // Invited anew it gets in with a new certificate, and the old one stays out.
  const again = await fleet.enrol('gw-001')
  assert.equal((await sendBatch(fleet, again)).status, 200)
  assert.equal((await sendBatch(fleet, gateway)).status, 403)
})

test('a gateway learns what the fleet says of it by now, and nothing else changes', async (t) => {
  const fleet = await TestFleet.start(t)
  const gateway = await fleet.enrol('gw-001', { group: 'boilers' })
  const folder = identityFolder(gateway.data)
  const known = async () => {
    const { certificate: _, ...identity } = (await readIdentity(folder))!
    return identity
  }
  const before = await known()
  await fleet.client.label('gw-001', { group: 'pumps', site: 'berlin' })
  await refresh({ ...before, collector: fleet.url }, undefined, folder)
  assert.deepEqual(await known(), {
    ...before,
    collector: fleet.url,
    labels: { group: 'pumps', site: 'berlin' },
  })
})

test('the collector makes itself a new certificate before the old one ends, for the same names', async (t) => {
  const folder = join(await temporaryDirectory(t), 'fleet')
  const nowMs = Date.now()
  const hosts = ['10.0.0.1', '::1']
  await initFleet({ folder, url: 'https://c.example:7443', hosts, manager: 'a', nowMs })
  const names = (cert: string) => new X509Certificate(cert).subjectAltName
  const first = (await readCollectorFiles(folder, nowMs)).server
  const dayMs = 86_400_000
  assert.equal((await readCollectorFiles(folder, nowMs + 300 * dayMs)).server.cert, first.cert)
  const renewed = (await readCollectorFiles(folder, nowMs + 350 * dayMs)).server
  assert.notEqual(renewed.cert, first.cert)
  assert.equal(names(renewed.cert), names(first.cert))
  assert.equal((await readCollectorFiles(folder, nowMs + 350 * dayMs)).server.cert, renewed.cert)

  await writeFile(join(folder, 'collector/server.pem'), first.cert)
  const { cert, key } = (await readCollectorFiles(folder, nowMs)).server
  assert.ok(new X509Certificate(cert).checkPrivateKey(createPrivateKey(key)), 'cut in the middle')
})
