import assert from 'node:assert/strict'
import { test } from 'node:test'
import { HttpServer } from '../../collector/http.ts'
import { LogFailure } from '../../collector/log/engine.ts'
import { cleanUp } from '../support/clean-up.ts'

const options = { host: '127.0.0.1', port: 0, maxConnections: 10, timeout: 5_000 }

test('whoever asks a log that cannot be reached is told to come back, and no cause is hidden', async (t) => {
  const server = await HttpServer.open(options, (_, __, { pathname }) => {
    throw pathname === '/away' ? new LogFailure('LOG_DISK', 'no leader') : new Error('a mistake')
  })
  cleanUp(t, () => server.close())
  const away = await fetch(`${server.url}/away`)
  assert.equal(away.status, 503)
  assert.ok(Number(away.headers.get('retry-after')) > 0)
  assert.deepEqual(await away.json(), {
    code: 'LOG_DISK',
    message: 'the log cannot write: no leader',
  })
  const mistaken = await fetch(`${server.url}/else`)
  assert.equal(mistaken.status, 500)
  assert.match(await mistaken.text(), /a mistake/)
})
