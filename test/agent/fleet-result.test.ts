import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Commands } from '../../agent/fleet/commands.ts'
import {
  type CommandResult,
  maxReportBytes,
  readReport,
  resultSchema,
} from '../../shared/fleet/reports.ts'
import { FleetDesk } from '../support/fleet-desk.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { MemoryDisk } from '../support/memory-disk.ts'
import { silentLog } from '../support/silent-log.ts'

const desk = new FleetDesk()

/** Commands of an agent that can do what is given here. */
async function openCommands(actions: object, clock: ManualClock, disk = new MemoryDisk()) {
  const told: CommandResult[] = []
  const commands = await Commands.open({
    disk,
    clock,
    log: silentLog,
    receiver: () => ({
      agent: 'gw-001',
      labels: {},
      configKey: desk.keys.publicKey,
      nowMs: clock.wallMs(),
    }),
    actions: actions as never,
    publish: (result) => told.push(result),
  })
  return { commands, told }
}

test('a command does not run again where the clock is set back, also after a restart', async () => {
  const clock = new ManualClock(Date.UTC(2026, 5, 1))
  const disk = new MemoryDisk()
  let runs = 0
  const flush = async () => {
    runs += 1
    return {}
  }
  const { commands } = await openCommands({ flush }, clock, disk)
  const startMs = clock.wallMs()
  const first = desk.command('c1', 'flush', {}, { expiresMs: startMs + 60_000 })
  await commands.take('c1', first)
  await commands.idle
  clock.setWall(startMs + 3_600_000)
  const second = desk.command('c2', 'flush', {}, { expiresMs: startMs + 3_660_000 })
  await commands.take('c2', second)
  await commands.idle
  assert.equal(runs, 2)
  clock.setWall(startMs + 1_000)
  const { commands: later } = await openCommands({ flush }, clock, disk)
  for (const each of [commands, later]) {
    await each.take('c1', first)
    await each.take('c2', second)
    await each.idle
  }
  assert.equal(runs, 2)
})

test('a thousand commands are remembered, and those that have expired make room', async () => {
  const clock = new ManualClock(Date.UTC(2026, 5, 1))
  const { commands, told } = await openCommands({ flush: async () => ({}) }, clock)
  const take = async (id: string) => {
    const expiresMs = clock.wallMs() + 60_000
    await commands.take(id, desk.command(id, 'flush', {}, { expiresMs }))
    await commands.idle
    return told.at(-1)!.state
  }
  for (let i = 0; i < 1_000; i++) assert.equal(await take(`c${i}`), 'done')
  assert.equal(await take('more'), 'refused')
  clock.setWall(clock.wallMs() + 60_000)
  assert.equal(await take('more-2'), 'done')
})

test('a result is measured in bytes, and a problem of any length is told', async () => {
  const clock = new ManualClock()
  const { commands, told } = await openCommands(
    {
      diagnostics: async () => ({ text: '測'.repeat(maxReportBytes / 2) }),
      flush: async () => {
        throw new Error('x'.repeat(5_000))
      },
    },
    clock,
  )
  const expiresMs = clock.wallMs() + 60_000
  for (const name of ['diagnostics', 'flush'])
    await commands.take(name, desk.command(name, name, {}, { expiresMs }))
  await commands.idle
  assert.deepEqual(
    told.map(({ state }) => state),
    ['done', 'failed'],
  )
  assert.match(told[0]!.problems[0]!.message, /too large/)
  for (const result of told) {
    const bytes = new TextEncoder().encode(JSON.stringify(result))
    assert.deepEqual(readReport(resultSchema, bytes), result)
  }
})
