// What it costs to make groups of readings durable: the outbox, against appending blocks of the same
// encoding to a file with one fdatasync each, and against LevelDB with one key a reading. All sides are
// given readings. `node test/bench/commit.ts`
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { ClassicLevel } from 'classic-level'
import { encodeItem } from '../../shared/batch.ts'
import type { AdmittedReading } from '../../shared/reading.ts'
import { systemClock } from '../../shared/system.ts'
import { groupOf, openOutbox } from '../support/outbox.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { bench, cpuRatio, interleave, ratios, scoped } from './harness/bench.ts'
import { figure } from './harness/figure.ts'
import { collectGarbage } from './harness/usage.ts'
import { plant } from './wire/sources.ts'

interface Written {
  perSecond: number
  cpuPerMillion: number
}

/** As the agent commits them when it is busy. */
const perGroup = 4_000

await bench(async ({ short, rounds, say }) => {
  const groups = groupsOf(perGroup, 150)
  const side = (name: string, run: () => Promise<Written>) => async () => {
    const written = await run()
    const { perSecond, cpuPerMillion } = written
    say(
      `${name}: ${Math.round(perSecond)} readings/s at ${cpuPerMillion.toFixed(2)} CPU s a million`,
    )
    return written
  }
  // Once unmeasured: the outbox's code is the largest, and would be compiled on its own time.
  await outboxSide(groups)
  const { outbox, append, blocks, rows } = await interleave(rounds, {
    outbox: side('outbox', () => outboxSide(groups)),
    append: side('encode, append, fdatasync', () => appendSide(groups)),
    blocks: short ? undefined : side('append, fdatasync', () => blocksSide(groups)),
    rows: side('one key a reading', () => rowsSide(groups)),
  })
  const rate = (runs: readonly Written[]) => runs.map(({ perSecond }) => perSecond)
  const cost = (runs: readonly Written[]) => runs.map(({ cpuPerMillion }) => cpuPerMillion)
  return [
    figure('commit.appendRatio', ratios(rate(outbox), rate(append)), 'ratio', { atLeast: 0.5 }),
    figure('commit.rowsRatio', ratios(rate(outbox), rate(rows)), 'ratio', { atLeast: 2 }),
    ...(short ? [] : [figure('commit.blocksRatio', ratios(rate(outbox), rate(blocks)), 'ratio')]),
    figure('commit.perSecond', rate(outbox), 'readings/s'),
    figure('commit.cpuPerMillion', cost(outbox), 'CPU s/million'),
    cpuRatio('commit.rowsCpuRatio', cost(outbox), cost(rows)),
  ]
})

function groupsOf(size: number, count: number): AdmittedReading[][] {
  const { readings } = plant(size * count)
  return Array.from({ length: count }, (_, i) => {
    const group = readings.slice(i * size, (i + 1) * size)
    // One group has one arrival.
    return group.map((reading) => ({ ...reading, arrival: group[0]!.arrival }))
  })
}

function outboxSide(groups: readonly AdmittedReading[][]): Promise<Written> {
  return scoped(async (t) => {
    await using outbox = await openOutbox(join(await temporaryDirectory(t), 'outbox'), {
      clock: systemClock,
    })
    return await timed(groups, (group) => outbox.commit(groupOf(group)))
  })
}

function appendSide(groups: readonly AdmittedReading[][]): Promise<Written> {
  return scoped(async (t) => {
    await using file = await open(join(await temporaryDirectory(t), 'blocks'), 'w')
    return await timed(groups, async (readings) => {
      await file.write(encodeItem({ kind: 'readings', readings }))
      await file.datasync()
    })
  })
}

/** The disk's own share: blocks that were encoded before the clock starts. */
function blocksSide(groups: readonly AdmittedReading[][]): Promise<Written> {
  const blocks = new Map(
    groups.map((group) => [group, encodeItem({ kind: 'readings', readings: group })]),
  )
  return scoped(async (t) => {
    await using file = await open(join(await temporaryDirectory(t), 'blocks'), 'w')
    return await timed(groups, async (group) => {
      await file.write(blocks.get(group)!)
      await file.datasync()
    })
  })
}

function rowsSide(groups: readonly AdmittedReading[][]): Promise<Written> {
  return scoped(async (t) => {
    await using level = new ClassicLevel<string, unknown>(
      join(await temporaryDirectory(t), 'rows'),
      { valueEncoding: 'json' },
    )
    await level.open()
    let sequence = 0
    return await timed(groups, async (group) => {
      const batch = level.batch()
      for (const { series, timeMs, value, quality } of group) {
        const { device, metric } = series
        batch.put(String(++sequence).padStart(16, '0'), { device, metric, timeMs, value, quality })
      }
      await batch.write({ sync: true })
    })
  })
}

async function timed(
  groups: readonly AdmittedReading[][],
  commit: (group: AdmittedReading[]) => Promise<unknown>,
): Promise<Written> {
  collectGarbage()
  const before = process.cpuUsage()
  const startedMs = performance.now()
  for (const group of groups) await commit(group)
  const seconds = (performance.now() - startedMs) / 1_000
  const { user, system } = process.cpuUsage(before)
  const readings = groups.reduce((sum, { length }) => sum + length, 0)
  return { perSecond: readings / seconds, cpuPerMillion: (user + system) / readings }
}
