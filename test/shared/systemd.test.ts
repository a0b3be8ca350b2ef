import assert from 'node:assert/strict'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { reportToSystemd } from '../../shared/systemd.ts'
import { silentLog } from '../support/silent-log.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { until } from '../support/until.ts'

test('systemd hears that a program is up and turns, and no more once its work is stuck', async (t) => {
  const folder = await temporaryDirectory(t)
  const heard = join(folder, 'heard')
  const tool = `#!/bin/sh\necho "$1" >>${heard}\n`
  writeFileSync(join(folder, 'systemd-notify'), tool, { mode: 0o755 })
  const words = () => (existsSync(heard) ? readFileSync(heard, 'utf8').trim().split('\n') : [])
  const count = () => words().filter((word) => word === 'WATCHDOG=1').length

  let stuckForMs = 0
  let asked = 0
  using _service = reportToSystemd(
    silentLog,
    () => {
      asked += 1
      return stuckForMs
    },
    { PATH: `${folder}:${process.env.PATH}`, NOTIFY_SOCKET: '/none', WATCHDOG_USEC: '100000' },
  )
  await until(() => count() >= 2, 'it is said that the program turns')
  assert.ok(words().includes('READY=1'))

  stuckForMs = 100
  const before = asked
  await until(() => count() === before, 'what was said before has been heard')
  await until(() => asked >= before + 3, 'its time has come again')
  assert.equal(count(), before)
})
