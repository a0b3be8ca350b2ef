import assert from 'node:assert/strict'
import { test } from 'node:test'
import { postgres } from '../../collector/sinks/postgres.ts'
import { SinkFailure } from '../../collector/sinks/sink.ts'
import { makeCertificates } from '../support/certificates.ts'
import { Postgres } from '../support/postgres.ts'
import { contextOf } from '../support/sinks.ts'

test('a database is reached over TLS, and not at all where its certificate is not trusted', async (t) => {
  const certificates = await makeCertificates(t)
  const strange = await makeCertificates(t)
  if (!certificates || !strange) return
  const server = await Postgres.start(t, certificates.server)
  if (!server) return
  const open = (ca: string) => {
    const url = `${server.url()}?sslmode=verify-full&sslrootcert=${ca}`
    return postgres.open(postgres.schema.parse({ url }), contextOf({ name: 'history' }))
  }
  {
    await using _ = await open(certificates.ca)
    const rows = await server.query(
      `SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'headgate history'`,
    )
    assert.deepEqual(rows, [{ ssl: true }])
  }
  const failure = await open(strange.ca).catch((error) => error)
  assert.ok(failure instanceof SinkFailure, String(failure))
  assert.equal(failure.code, 'SINK_UNREACHABLE')
  assert.match(failure.message, /certificate|signature/)
})
