import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { createServer as createPlainServer, type Server as HttpServer } from 'node:http'
import { createServer } from 'node:https'
import { type AddressInfo, connect, createServer as createPlainTcp, type Server } from 'node:net'
import { type TestContext, test } from 'node:test'
import {
  createServer as createTls,
  getCACertificates,
  setDefaultCACertificates,
  type TLSSocket,
} from 'node:tls'
import { createWebSocketStream, WebSocketServer } from 'ws'
import { openFleetDialer } from '../../agent/fleet/dial.ts'
import { type Certificates, makeCertificates } from '../support/certificates.ts'
import { cleanUp } from '../support/clean-up.ts'
import { FleetDesk } from '../support/fleet-desk.ts'
import { FleetWatcher, runMember } from '../support/fleet-member.ts'
import { documentFor } from '../support/fleet-plant.ts'
import { keepsQueue, Mosquitto } from '../support/mosquitto.ts'

test('over WebSocket and TLS, through a proxy, with the certificate', async (t) => {
  const certificates = await makeCertificates(t)
  const broker = certificates && (await Mosquitto.start(t, { lines: keepsQueue }))
  if (!broker) return
  const front = await webSocketFront(t, certificates, broker.port)
  const proxy = await connectProxy(t)
  const desk = new FleetDesk()
  const watcher = await FleetWatcher.open(t, broker.url, certificates, desk)
  await runMember(t, {
    broker: broker.url,
    fleet: `wss://127.0.0.1:${front.port}/mqtt`,
    proxy: `http://user:secret@127.0.0.1:${proxy.port}`,
    desk,
    certificates,
  })
  await watcher.until(0, 'none')
  await watcher.push(1, documentFor(broker.url))
  await watcher.until(1, 'good')
  assert.deepEqual(new Set(front.names), new Set(['test-client']))
  assert.equal(proxy.asked[0], `127.0.0.1:${front.port} Basic ${btoa('user:secret')}`)
})

test('an authority that is itself signed by another one is believed', async (t) => {
  const certificates = await makeCertificates(t, 'IP:127.0.0.1', { intermediate: true })
  const plain = certificates && createPlainTcp()
  if (!plain) return
  const { ca, server: own, client } = certificates
  const front = await webSocketFront(t, certificates, await listen(t, plain))
  const [cert, key] = await Promise.all([own.cert, own.key].map((file) => readFile(file)))
  const tlsPort = await listen(t, createTls({ cert: cert!, key: key! }))
  const proxy = await connectProxy(t)
  for (const [url, through] of [
    [`mqtts://127.0.0.1:${tlsPort}`, undefined],
    [`wss://127.0.0.1:${front.port}/mqtt`, undefined],
    [`wss://127.0.0.1:${front.port}/mqtt`, `http://127.0.0.1:${proxy.port}`],
  ] as const)
    await dial(url, { ca, ...client }, through)
})

test('a proxy at an https address is spoken to over TLS', async (t) => {
  const certificates = await makeCertificates(t, 'DNS:localhost')
  const plain = certificates && createPlainTcp()
  if (!plain) return
  const { ca, server: own, client } = certificates
  const [caPem, cert, key] = await Promise.all(
    [ca, own.cert, own.key].map((file) => readFile(file, 'utf8')),
  )
  const front = await webSocketFront(t, certificates, await listen(t, plain))
  const proxy = await connectProxy(t, createServer({ cert: cert!, key: key! }))
  const before = getCACertificates('default')
  setDefaultCACertificates([caPem!])
  cleanUp(t, () => setDefaultCACertificates(before))
  const url = `wss://localhost:${front.port}/mqtt`
  await dial(url, { ca, ...client }, `https://localhost:${proxy.port}`)
  assert.equal(proxy.asked.length, 1)
})

/** Connects, and is done. */
async function dial(url: string, files: { ca: string; cert: string; key: string }, proxy?: string) {
  const dialer = openFleetDialer(url, files, proxy)
  const signal = AbortSignal.timeout(5_000)
  const connection = await dialer.dial({ data() {}, closed() {} }, signal)
  connection.destroy()
}

/** Takes WebSocket connections with a certificate, and hands their bytes to a broker. */
async function webSocketFront(t: TestContext, { ca, server: own }: Certificates, target: number) {
  const [caPem, cert, key] = await Promise.all(
    [ca, own.cert, own.key].map((file) => readFile(file)),
  )
  const server = createServer({
    ...{ ca: caPem!, cert: cert!, key: key! },
    requestCert: true,
    rejectUnauthorized: false, // Its names tell who has come.
  })
  const names: string[] = []
  const sockets = new WebSocketServer({ server, handleProtocols: () => 'mqtt' })
  sockets.on('connection', (socket, request) => {
    names.push((request.socket as TLSSocket).getPeerCertificate().subject.CN as string)
    const stream = createWebSocketStream(socket)
    const onward = connect(target, '127.0.0.1')
    stream.pipe(onward).pipe(stream)
    stream.on('error', () => onward.destroy())
    onward.on('error', () => stream.destroy())
  })
  return { port: await listen(t, server), names }
}

/** A proxy that connects to wherever it is asked to. */
async function connectProxy(t: TestContext, server: HttpServer = createPlainServer()) {
  const asked: string[] = []
  server.on('connect', (request, socket) => {
    asked.push(`${request.url} ${request.headers['proxy-authorization']}`)
    const [host, port] = request.url!.split(':')
    const onward = connect(Number(port), host!, () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n')
      socket.pipe(onward).pipe(socket)
    })
    for (const end of [socket, onward]) end.on('error', () => {})
  })
  return { port: await listen(t, server), asked }
}

async function listen(t: TestContext, server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  cleanUp(t, () => server.close())
  return (server.address() as AddressInfo).port
}
