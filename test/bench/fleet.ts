// What thousands of gateways cost the collector: enrolment, connecting and a rollout to all of them, each
// over its own TLS connection to the built-in broker. `node test/bench/fleet.ts [--short]`.
import { createHash, randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Agent } from 'undici'
import { initFleet, readManagerFiles } from '../../collector/fleet/files.ts'
import { FleetClient } from '../../collector/fleet-command/client.ts'
import { sign } from '../../shared/fleet/envelope.ts'
import { freePort } from '../support/free-port.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { SimulatedGateway } from './fleet/gateway.ts'
import { bench, scoped } from './harness/bench.ts'
import { type Figure, figure } from './harness/figure.ts'
import { Program } from './harness/program.ts'
import { cpuSeconds, memoryMb, watchMemory } from './harness/usage.ts'

const gateways = 5_000
/** Enrolments, and TLS handshakes, under way at a time. */
const atOnce = 50
const headgate = fileURLToPath(new URL('../../headgate.mjs', import.meta.url))

await bench(({ short, say }) =>
  scoped(async (t): Promise<Figure[]> => {
    const count = short ? 500 : gateways
    const folder = await temporaryDirectory(t)
    const [https, port] = [await freePort(), await freePort()]
    const url = `https://127.0.0.1:${https}`
    await initFleet({
      folder: join(folder, 'fleet'),
      url,
      hosts: [],
      manager: 'bench',
      nowMs: Date.now(),
    })
    const config = join(folder, 'collector.yaml')
    await writeFile(
      config,
      `data: ./data\nhttp: { port: ${https} }\nfleet: { folder: ./fleet, broker: { port: ${port} } }\n`,
    )
    const collector = Program.start(
      t,
      process.execPath,
      [headgate, 'collector', 'run', '--config', config],
      { quiet: true },
    )
    const files = await readManagerFiles(join(folder, 'fleet'))
    const client = new FleetClient(url, files)
    t.after(() => client[Symbol.asyncDispose]())
    while ((await client.version().catch(() => -1)) < 0) await pause(50)
    const emptyMb = memoryMb(collector.pid)

    const invited = Array.from({ length: count }, (_, i) => {
      const secret = randomBytes(16)
      const hash = createHash('sha256').update(secret).digest('hex')
      return {
        agent: `gw-${i}`,
        labels: { group: 'all' },
        hash,
        secret: secret.toString('base64url'),
      }
    })
    await client.invite(
      invited.map(({ secret: _, ...invitation }) => invitation),
      3_600_000,
    )
    const dispatcher = new Agent({ connect: { ca: files.ca }, connections: atOnce })
    t.after(() => dispatcher.destroy())
    const fleet: SimulatedGateway[] = []
    const enrolS = await seconds(() =>
      inParallel(invited, async ({ agent, secret }) => {
        fleet.push(await SimulatedGateway.enrol(agent, secret, url, dispatcher))
      }),
    )
    say(`${count} enrolled in ${enrolS.toFixed(1)} s`)
    const connectS = await seconds(() => inParallel(fleet, (gateway) => gateway.connect()))
    t.after(() => fleet.forEach((gateway) => void gateway.close()))
    const connectedMb = memoryMb(collector.pid)
    say(`${count} connected in ${connectS.toFixed(1)} s, ${connectedMb.toFixed(0)} MB`)

    const memory = watchMemory(collector.pid, 50)
    const cpuBefore = cpuSeconds(collector.pid)
    const nowMs = Date.now()
    const document = { uplink: { url, note: 'x'.repeat(2_000) } }
    const rolloutS: number[] = []
    for (let version = 1; version <= (short ? 1 : 3); version++) {
      const times = { notBeforeMs: nowMs - 60_000, expiresMs: nowMs + 3_600_000 }
      const envelope = sign(
        { kind: 'configuration', group: 'all', version, ...times, document },
        files.configKey,
      )
      rolloutS.push(
        await seconds(async () => {
          const { id } = await client.rollout({
            envelope,
            reverts: [],
            waves: [{ count: 1 }, { percent: 10 }, { percent: 100 }],
            pauseMs: 0,
            maxFailures: { count: 0 },
            minGoodPercent: 100,
            timeoutMs: 600_000,
          })
          for (;;) {
            const { phase, why, good } = await client.rolloutOf(id)
            if (phase === 'finished' && good === count) return
            if (phase === 'halted') throw new Error(why)
            await pause(20)
          }
        }),
      )
      say(`version ${version} is good on ${count} after ${rolloutS.at(-1)!.toFixed(1)} s`)
    }
    const { peakMb, grownMb } = memory.end()
    const cpu = (cpuSeconds(collector.pid) - cpuBefore) / rolloutS.length
    return [
      figure('fleet.enrolPerSecond', [count / enrolS], 'gateways/s'),
      figure('fleet.connectPerSecond', [count / connectS], 'gateways/s'),
      figure('fleet.rolloutS', rolloutS, 's', { atMost: 60 }),
      figure('fleet.rolloutCpuS', [cpu], 'CPU s'),
      figure('fleet.kilobytesPerGateway', [((connectedMb - emptyMb) * 1_000) / count], 'kB'),
      figure('fleet.peakMb', [peakMb], 'MB', { atMost: 1_000 }),
      figure('fleet.grownMb', [grownMb], 'MB'),
    ]
  }),
)

async function seconds(work: () => Promise<unknown>): Promise<number> {
  const startMs = performance.now()
  await work()
  return (performance.now() - startMs) / 1_000
}

async function inParallel<Item>(items: readonly Item[], work: (item: Item) => Promise<unknown>) {
  const left = items.values()
  const worker = async () => {
    for (const item of left) await work(item)
  }
  await Promise.all(Array.from({ length: atOnce }, worker))
}
