import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { poll } from '../support/poll.ts'
import { Headgate } from '../support/process.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const trace = fileURLToPath(new URL('../data/boilers.csv', import.meta.url))
const replay = ['up', '--trace', trace, '--speed', 'max', '--until-done', '--json']

test('`up` on the data of an earlier one goes on behind it, and adds up', async (t) => {
  const data = join(await temporaryDirectory(t), 'plant')
  for (const runs of [1, 2]) {
    const { code, stdout, stderr } = await Headgate.run(t, [...replay, '--data', data])
    assert.equal(code, 0, stderr + stdout)
    const { sent, ledger, log } = JSON.parse(stdout)
    assert.equal(ledger.received, runs * sent)
    assert.equal(log.readings.readings, runs * sent)
  }
})

test('the agent of an `up` is asked by the folder that `up` names', async (t) => {
  const data = await temporaryDirectory(t)
  const up = Headgate.start(t, ['up', '--data', data])
  await up.said(/agent is process/)
  const status = ['agent', 'status', '--data', data, '--json']
  await poll(async () => (await Headgate.run(t, status)).code === 0, 'the agent answers')
  await up.stop('SIGINT')
})

test('`up` ends when its agent does not start, and says why', async (t) => {
  const directory = await temporaryDirectory(t)
  const config = join(directory, 'agent.yaml')
  await writeFile(config, 'filter: nothing\n')
  const { code, stderr } = await Headgate.run(t, [...replay, '--config', config])
  assert.equal(code, 1)
  assert.match(stderr, /agent ended with code 1: .*filter: expected a list/)
})

for (const [what, args, code, words] of [
  ['a wrong speed', ['--speed', 'fast'], 2, /--speed takes .*"fast"/],
  ['a missing configuration', ['--config', '/none/a.yaml'], 1, /a\.yaml: no such file/],
] as const)
  test(`\`up\` says ${what} in one line, before it starts anything`, async (t) => {
    const ended = await Headgate.run(t, ['up', ...args])
    assert.equal(ended.code, code)
    assert.match(ended.stderr, words)
    assert.equal(ended.stderr.trim().split('\n').length, 1, ended.stderr)
  })
