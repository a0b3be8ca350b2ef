import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
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

test('no answer in time is a time-out; what it leaves does not hold up the next request', async (t) => {
  let silent = true
  const port = await listening(
    t,
    createServer((request, response) => {
      request.resume().on('end', () => {
        if (!silent) response.end('answered')
      })
    }),
  )
  const link = openHttpLink({ url: `http://127.0.0.1:${port}` })
  t.after(() => link.close())
  const { signal } = new AbortController()
  const request = { path: '/v1/batches', headers: {}, body: new Uint8Array(3) }
  await assert.rejects(link.post({ ...request, timeoutMs: 20 }, signal), { name: 'TimeoutError' })
  silent = false
  const answer = await link.post({ ...request, timeoutMs: 5_000 }, signal)
  assert.equal(Buffer.from(answer.body).toString(), 'answered')
})

test('where there is no connection in time, that says nothing of how much the link can carry', async (t) => {
  const silent = createServer().on('connect', () => {})
  const proxy = await listening(t, silent)
  const link = openHttpLink({ url: 'http://127.0.0.1:1', proxy: `http://127.0.0.1:${proxy}` })
  t.after(() => link.close())
  const request = { path: '/', headers: {}, body: new Uint8Array(3), timeoutMs: 100 }
  await assert.rejects(link.post(request, new AbortController().signal), {
    name: 'ConnectTimeoutError',
  })
})

test('a request that is given up ends with the reason, its listener taken back', async (t) => {
  const arrived = Promise.withResolvers<void>()
  const port = await listening(
    t,
    createServer((request) => {
      request.resume().on('end', () => arrived.resolve())
    }),
  )
  const link = openHttpLink({ url: `http://127.0.0.1:${port}` })
  t.after(() => link.close())
  const controller = new AbortController()
  const request = { path: '/', headers: {}, body: new Uint8Array(3), timeoutMs: 60_000 }
  const answer = link.post(request, controller.signal)
  await arrived.promise
  assert.equal(getEventListeners(controller.signal, 'abort').length, 1)
  controller.abort(new Error('the agent stops'))
  await assert.rejects(answer, { message: 'the agent stops' })
  assert.equal(getEventListeners(controller.signal, 'abort').length, 0)
  await assert.rejects(link.post(request, controller.signal), { message: 'the agent stops' })
})

test('an answer without end is cut, and its connection let go', async (t) => {
  const left = Promise.withResolvers<void>()
  const port = await listening(
    t,
    createServer((request, response) => {
      const more = () => void response.write(Buffer.alloc(16_384, 'x'), () => setImmediate(more))
      response.on('close', left.resolve)
      request.resume().on('end', more)
    }),
  )
  const link = openHttpLink({ url: `http://127.0.0.1:${port}` })
  t.after(() => link.close())
  const request = { path: '/', headers: {}, body: new Uint8Array(3), timeoutMs: 5_000 }
  const { status, body } = await link.post(request, new AbortController().signal)
  assert.equal(status, 200)
  assert.equal(body.length, 65_536)
  await left.promise
})

test('a collector that breaks off, or is not there, is an error that says so', async (t) => {
  const port = await listening(
    t,
    createServer((request, response) => {
      response.write('half', () => request.socket.destroy())
    }),
  )
  const link = openHttpLink({ url: `http://127.0.0.1:${port}` })
  t.after(() => link.close())
  const request = { path: '/', headers: {}, body: new Uint8Array(3), timeoutMs: 5_000 }
  const { signal } = new AbortController()
  await assert.rejects(link.post(request, signal), { code: 'UND_ERR_SOCKET' })
  const nobody = openHttpLink({ url: 'http://127.0.0.1:1' })
  t.after(() => nobody.close())
  await assert.rejects(nobody.post(request, signal), { code: 'ECONNREFUSED' })
})
