// What the packaged agent takes of a gateway: `npm run package`, then `node test/bench/gateway.ts`.
// Memory is what it has to itself (RssAnon): RSS is mostly pages of the executable, which the kernel can drop.
import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { dist, version } from '../package/support/built.ts'
import { idleMemory, loadedMemory, startTimes } from '../package/support/measure.ts'
import { thirdAndLast } from '../package/support/memory.ts'
import { bench, scoped } from './harness/bench.ts'
import { type Figure, figure, missing } from './harness/figure.ts'
import { mosquittoAbsent, startMosquitto } from './harness/mosquitto.ts'

const machine = process.arch === 'arm64' ? 'arm64' : 'amd64'
const perSecond = 2_000

await bench(async ({ short, rounds, say }) => {
  const executable = join(dist, `headgate-agent-linux-${process.arch}`)
  const deb = join(dist, `headgate-agent_${version}_${machine}.deb`)
  if (!existsSync(executable) || !existsSync(deb))
    return [missing('gateway.startMs', 'ms', 'npm run package comes first')]
  const megabytes = (file: string) => statSync(file).size / 1e6
  return scoped(async (t) => {
    const figures: Figure[] = [
      figure('gateway.fileMb', [megabytes(executable)], 'MB', { atMost: 120 }),
      figure('gateway.packageMb', [megabytes(deb)], 'MB', { atMost: 33 }),
    ]
    const starts = await startTimes(t, 3 * rounds)
    const took = starts.map(({ tookMs }) => tookMs)
    figures.push(figure('gateway.startMs', took, 'ms', { atMost: 350 }))
    const absent = mosquittoAbsent()
    if (absent) return [...figures, missing('gateway.idleMb', 'MB', absent)]
    const broker = await startMosquitto(t)
    const idle = await idleMemory(t, broker.url, short ? 10 : 60)
    figures.push(figure('gateway.idleMb', [Math.max(...idle)], 'MB', { atMost: 48 }))
    const seconds = short ? 20 : 120
    const loaded = await loadedMemory(t, broker.url, { perSecond, seconds })
    const [third, last] = thirdAndLast(loaded.seen)
    say(`${loaded.perSecond.toFixed(0)} readings/s for ${seconds} s`)
    figures.push(
      figure('gateway.loadedMb', [Math.max(...loaded.seen)], 'MB', { atMost: 80 }),
      figure('gateway.loadedGrowthMb', [last - third], 'MB', { atMost: 2 }),
    )
    return figures
  })
})
