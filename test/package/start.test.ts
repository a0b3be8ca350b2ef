import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import mqtt from 'mqtt-packet'
import { Gateway } from '../support/plant.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { executable } from './support/built.ts'
import { median } from './support/memory.ts'

test('an agent has subscribed within 350 ms of its start', async (t) => {
  const server = createServer((socket) => {
    socket.on('error', () => {})
    const parser = mqtt.parser()
    parser.on('packet', ({ cmd }) => {
      if (cmd === 'connect')
        socket.write(mqtt.generate({ cmd: 'connack', returnCode: 0, sessionPresent: false }))
      if (cmd === 'subscribe') server.emit('subscribed')
    })
    socket.on('data', (bytes) => parser.parse(bytes))
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  t.after(() => server.close())
  const { port } = server.address() as { port: number }
  const directory = await temporaryDirectory(t)
  const tookMs: number[] = []
  const shareMs: number[] = []
  for (let run = 0; run < 9; run++) {
    const gateway = await Gateway.make(t, {
      directory: join(directory, String(run)),
      broker: `mqtt://127.0.0.1:${port}`,
      collector: 'http://127.0.0.1:1',
      source: { version: '3.1.1' },
    })
    const startedMs = performance.now()
    const agent = gateway.launch({ command: [executable('agent')] })
    await once(server, 'subscribed')
    const ms = performance.now() - startedMs
    tookMs.push(ms)
    shareMs.push(ms - waitedForCoreMs(agent.pid))
    await agent.kill()
  }
  t.diagnostic(
    `start to first subscription: ${median(tookMs).toFixed(0)} ms, ${median(shareMs).toFixed(0)} ms without ` +
      'what other processes had of its core (medians of 9)',
  )
  assert.ok(median(shareMs) < 350)
})

/** Time in which a process could have run, had there been a free core. (Documentation/scheduler/sched-stats.rst) */
function waitedForCoreMs(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/schedstat`, 'utf8').split(' ')[1]) / 1e6
}
