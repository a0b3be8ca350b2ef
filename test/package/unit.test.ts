import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'
import { root } from '../../shared/package/paths.ts'
import { needs } from '../support/needs.ts'

/** Above 0, wide open, to 10: what systemd thinks that a service which was broken into could do. */
const mostExposure = 1.5

for (const program of ['agent', 'collector']) {
  const unit = join(root, program, 'package', `headgate-${program}.service`)

  test(`whoever breaks into the ${program} gets little by it`, (t) => {
    const analyze = needs(t, 'systemd-analyze')
    if (!analyze) return
    const args = ['security', '--offline=true', '--no-pager', unit]
    const text = execFileSync(analyze, args, { encoding: 'utf8' })
    const exposure = Number(/exposure level .*: ([\d.]+)/.exec(text)![1])
    t.diagnostic(`headgate-${program}.service: exposure ${exposure}`)
    assert.ok(exposure <= mostExposure)
  })

  test(`systemd understands every line of the ${program}'s unit`, (t) => {
    const analyze = needs(t, 'systemd-analyze')
    if (!analyze) return
    const { stderr } = spawnSync(analyze, ['verify', '--man=no', unit], { encoding: 'utf8' })
    // The programs that it starts are not installed here.
    const lines = stderr.split('\n').filter((line) => line && !/is not executable/.test(line))
    assert.deepEqual(lines, [])
  })
}
