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

test('a result is measured in bytes, and a problem of any length is told', async () => {
  const desk = new FleetDesk()
  const clock = new ManualClock()
  const told: CommandResult[] = []
  const commands = await Commands.open({
    disk: new MemoryDisk(),
    clock,
    log: silentLog,
    receiver: () => ({
      agent: 'gw-001',
      labels: {},
      configKey: desk.keys.publicKey,
      nowMs: clock.wallMs(),
    }),
    actions: {
      diagnostics: async () => ({ text: '測'.repeat(maxReportBytes / 2) }),
      flush: async () => {
        throw new Error('x'.repeat(5_000))
      },
    } as never,
    publish: (result) => told.push(result),
  })
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
