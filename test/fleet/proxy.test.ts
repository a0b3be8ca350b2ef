import assert from 'node:assert/strict'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import mqtt from 'mqtt'
import { stringify } from 'yaml'
import { cleanUp } from '../support/clean-up.ts'
import { freePort } from '../support/free-port.ts'
import { Mosquitto } from '../support/mosquitto.ts'
import { poll } from '../support/poll.ts'
import { Headgate } from '../support/process.ts'
import { temporaryDirectory } from '../support/temporary.ts'

/** A proxy that opens a way to one address only, and remembers who asked for what. */
async function startProxy(t: TestContext, allowed: string) {
  const asked: string[] = []
  const server = createServer((_, response) => response.writeHead(405).end())
  server.on('connect', (request, socket) => {
    asked.push(request.url!)
    socket.on('error', () => {})
    if (request.url !== allowed) return socket.end('HTTP/1.1 403 Forbidden\r\n\r\n')
    const { port } = new URL(`http://${allowed}`)
    const through = connect(Number(port), '127.0.0.1', () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n')
      through.pipe(socket).pipe(through)
    })
    through.on('error', () => socket.destroy())
    socket.on('close', () => through.destroy())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  cleanUp(t, () => {
    server.closeAllConnections()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked }
}

test('one outbound 443 through a proxy is enough for a gateway: to enrol, to send, and for its fleet', async (t) => {
  const mosquitto = await Mosquitto.start(t)
  if (!mosquitto) return
  const folder = await temporaryDirectory(t)
  const at = (name: string) => join(folder, name)
  const port = await freePort()
  const url = `https://localhost:${port}`
  const proxy = await startProxy(t, `localhost:${port}`)
  const env = { HTTPS_PROXY: proxy.url, NO_PROXY: '' }
  const type = async (args: string[], options: { env?: Record<string, string> } = {}) => {
    const ended = await Headgate.run(t, args, options)
    assert.equal(ended.code, 0, `headgate ${args.join(' ')}: ${ended.stderr}`)
    return ended.stdout
  }
  await type(['fleet', 'init', '--dir', at('fleet'), '--url', url])
  const broker = { port: 0, announce: `wss://localhost:${port}/mqtt` }
  await writeFile(
    at('collector.yaml'),
    stringify({ data: './collector', http: { port }, fleet: { folder: './fleet', broker } }),
  )
  const collector = Headgate.start(t, ['collector', 'run', '--config', at('collector.yaml')])
  await collector.said(/listening/)
  const token = (await type(['fleet', 'invite', 'gw-001', '--fleet', at('fleet')])).trim()
  await writeFile(
    at('agent.yaml'),
    stringify({
      agent: 'gw-001',
      data: './gw',
      source: { url: mosquitto.url },
      decode: [{ topic: 'sensors/{device}/{metric}', format: 'json' }],
      uplink: { url, retry: { base: '100ms', max: '1s' }, batch: { maxAge: '100ms' } },
      fleet: { retry: { base: '100ms', max: '1s' } },
    }),
  )
  await type(['agent', 'enrol', '--url', url, '--token', token, '--config', at('agent.yaml')], {
    env,
  })
  const agent = Headgate.start(t, ['agent', 'run', '--config', at('agent.yaml')], { env })
  await agent.said(/agent is running/)
  await poll(
    async () => /online/.test(await type(['fleet', 'ls', '--fleet', at('fleet')])),
    'the fleet sees it',
  )
  const device = await mqtt.connectAsync(mosquitto.url)
  cleanUp(t, () => device.endAsync(true))
  await device.publishAsync('sensors/pump/pressure', '4.5', { qos: 1 })
  await poll(
    async () => /pump,pressure/.test(await type(['log', 'cat', '--data', at('collector')])),
    'its reading is in the log',
  )
  assert.ok(proxy.asked.length >= 3)
  assert.deepEqual([...new Set(proxy.asked)], [`localhost:${port}`])
})
