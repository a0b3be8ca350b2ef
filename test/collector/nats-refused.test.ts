import assert from 'node:assert/strict'
import { createServer, type Socket } from 'node:net'
import { test } from 'node:test'
import { NatsLog } from '../../collector/log/nats/nats.ts'
import { systemClock, systemRandom } from '../../shared/system.ts'
import { cleanUp, type Test } from '../support/clean-up.ts'
import { silentLog } from '../support/silent-log.ts'

/** Says hello as a NATS server of that version does. */
async function greeter(t: Test, info: object): Promise<string> {
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.write(`INFO ${JSON.stringify({ server_id: 'x', max_payload: 1_048_576, ...info })}\r\n`)
    socket.on('data', (bytes) => {
      if (bytes.includes('PING')) socket.write('PONG\r\n')
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  cleanUp(t, () => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return `nats://127.0.0.1:${(server.address() as { port: number }).port}`
}

const open = (servers: string[]) =>
  NatsLog.open({
    servers,
    name: 'test',
    partitions: 1,
    replicas: 1,
    clock: systemClock,
    random: systemRandom,
    logger: silentLog,
    retention: { bytes: undefined, ageMs: undefined },
  })

test('a NATS server that is too old is refused with the reason', async (t) => {
  for (const version of ['2.9.10', '2.11.14', '1.4.0']) {
    const url = await greeter(t, { version, jetstream: true })
    await assert.rejects(open([url]), { code: 'LOG_REFUSED', message: /too old: before 2\.12\.0/ })
  }
})

test('a NATS server without JetStream is refused with what to do', async (t) => {
  const url = await greeter(t, { version: '2.12.0' })
  await assert.rejects(open([url]), { code: 'LOG_REFUSED', message: /no JetStream: enable it/ })
})

test('where no NATS server answers, the failure says so', async () => {
  const failure = { code: 'LOG_DISK', message: /no NATS server answers/ }
  await assert.rejects(open(['nats://127.0.0.1:1']), failure)
})
