import assert from 'node:assert/strict'
import { createServer, type IncomingMessage } from 'node:http'
import { connect } from 'node:net'
import { type TestContext, test } from 'node:test'
import { openHttpLink } from '../../agent/uplink/http.ts'
import { UserError } from '../../shared/failure.ts'

async function listening(t: TestContext, server: ReturnType<typeof createServer>): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  return (server.address() as { port: number }).port
}

test('through a proxy a batch reaches the collector, and the proxy is told who asks', async (t) => {
  const collector = await listening(
    t,
    createServer((request, response) => {
      request.resume().on('end', () => response.end(`took ${request.url}`))
    }),
  )
  const asked: (string | undefined)[] = []
  const proxyServer = createServer().on('connect', (request: IncomingMessage, client, head) => {
    asked.push(request.url, request.headers['proxy-authorization'])
    const [host, port] = request.url!.split(':')
    const server = connect(Number(port), host, () => {
      client.write('HTTP/1.1 200 OK\r\n\r\n')
      server.write(head)
      server.pipe(client).pipe(server)
    })
    for (const socket of [server, client]) socket.on('error', () => {})
  })
  const proxy = await listening(t, proxyServer)
  const link = openHttpLink({
    url: `http://127.0.0.1:${collector}/plant`,
    proxy: `http://gateway:secret@127.0.0.1:${proxy}`,
  })
  t.after(() => link.close())
  const request = { path: '/v1/batches', headers: {}, body: new Uint8Array(3), timeoutMs: 5_000 }
  const answer = await link.post(request, new AbortController().signal)
  assert.equal(Buffer.from(answer.body).toString(), 'took /plant/v1/batches')
  assert.deepEqual(asked, [
    `127.0.0.1:${collector}`,
    `Basic ${Buffer.from('gateway:secret').toString('base64')}`,
  ])
})

test('a missing authority is named', () => {
  assert.throws(
    () => openHttpLink({ url: 'https://127.0.0.1', ca: '/nowhere/ca.pem' }),
    (error) => error instanceof UserError && /uplink\.ca: \/nowhere\/ca\.pem/.test(error.message),
  )
})
