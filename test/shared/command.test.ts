import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

const program = fileURLToPath(new URL('../../headgate.mjs', import.meta.url))

for (const command of [
  '--help',
  'agent run --help',
  'filter try --trace test/data/boilers.csv',
  'collector run --help',
  'sim --help',
])
  test(`a reader that has gone away ends \`headgate ${command}\` quietly`, async () => {
    const child = spawn(process.execPath, [program, ...command.split(' ')])
    const ended = once(child, 'close')
    child.stdout.destroy()
    let said = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      said += text
    })
    const [code] = await ended
    assert.equal(said, '')
    assert.equal(code, 0)
  })
