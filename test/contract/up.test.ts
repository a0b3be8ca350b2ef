import assert from 'node:assert/strict'
import { symlink } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import type { UpReport } from '../../firmware-sim/up.ts'
import { KafkaNode } from '../support/kafka/server.ts'
import { natsServer } from '../support/nats/program.ts'
import { NatsNode } from '../support/nats/server.ts'
import { Headgate } from '../support/process.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const trace = fileURLToPath(new URL('../data/boilers.csv', import.meta.url))
const mainJob = ['up', '--until-done', '--speed', 'max', '--trace', trace, '--json']

function assertDone(stdout: string): void {
  const { sent, log, balanced } = JSON.parse(stdout) as UpReport
  assert.equal(balanced, true)
  assert.equal(log.readings!.readings, sent)
}

test('the main job ends in NATS as in the embedded log, on a server of its own', async (t) => {
  const server = await natsServer(t)
  if (!server) return
  const bin = await temporaryDirectory(t)
  await symlink(server, join(bin, 'nats-server'))
  const env = { PATH: `${bin}${delimiter}${process.env.PATH}` }
  const ended = await Headgate.run(t, [...mainJob, '--engine', 'nats'], { env })
  assert.equal(ended.code, 0, ended.stderr)
  assertDone(ended.stdout)
})

test('the main job ends in a cluster of three, through an outage and the loss of a server', async (t) => {
  const nodes = await NatsNode.start(t, { nodes: 3 })
  if (!nodes) return
  const servers = nodes.flatMap(({ url }) => ['--nats', url])
  const job = Headgate.start(t, [...mainJob, '--engine', 'nats', ...servers, '--outage', '3'])
  await job.said(/uplink cut/)
  await nodes[0]!.kill()
  const { code } = await job.ended()
  assert.equal(code, 0, job.stderr)
  assertDone(job.stdout)
})

test('the main job ends in Kafka as in the embedded log, through an outage', async (t) => {
  const nodes = await KafkaNode.start(t)
  if (!nodes) return
  const brokers = ['--kafka', nodes[0]!.address]
  const ended = await Headgate.run(t, [
    ...mainJob,
    '--engine',
    'kafka',
    ...brokers,
    '--outage',
    '3',
  ])
  assert.equal(ended.code, 0, ended.stderr)
  assertDone(ended.stdout)
})
