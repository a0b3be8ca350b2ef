import assert from 'node:assert/strict'
import { chmod, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { openLevel } from '../../agent/outbox/level.ts'
import { systemClock } from '../../shared/system.ts'
import { cleanUp } from '../support/clean-up.ts'
import { groupOf, openOutbox } from '../support/outbox.ts'
import { Headgate } from '../support/process.ts'
import { readings } from '../support/readings.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const looking = ['ls', 'verify', 'cat', 'export'] as const
const all = 2_000

/** A stopped agent's data folder, with 2,000 readings that wait. */
async function stopped(t: TestContext): Promise<string> {
  const data = await temporaryDirectory(t)
  const outbox = await openOutbox(join(data, 'outbox'), { clock: systemClock })
  for (let i = 0; i < 20; i++) await outbox.commit(groupOf(readings(100, 1 + i * 100)))
  await outbox.close()
  return data
}

function run(t: TestContext, name: string, data: string, ...more: string[]) {
  return Headgate.run(t, ['outbox', name, '--data', data, ...more])
}

/** The answer is one line that names the folder and says what to do, with exit code 1. */
async function refuses(t: TestContext, names: readonly string[], data: string, why: RegExp) {
  for (const name of names) {
    const { code, stdout, stderr } = await run(t, name, data)
    assert.equal(code, 1, `${name}: ${stdout}${stderr}`)
    assert.match(stderr, why, name)
    assert.match(stderr, /^headgate: [^\n]+\n$/, name)
  }
}

test('a whole outbox is listed, checked, printed and exported, as text and as JSON', async (t) => {
  const data = await stopped(t)
  const json = async (name: string) => {
    const { code, stdout } = await run(t, name, data, '--json')
    assert.equal(code, 0)
    return stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line))
  }
  const [listed] = await json('ls')
  assert.equal(listed.lanes.bulk.sequences, all)
  assert.equal(listed.balanced, true)
  assert.deepEqual(await json('verify'), [{ sequences: all, damage: [] }])
  assert.deepEqual(
    (await json('cat')).map(({ value }) => value),
    (await json('export')).map(({ value }) => value),
  )
  assert.deepEqual(await json('repair'), [{ repaired: [] }])
  assert.match((await run(t, 'verify', data)).stdout, /^2000 sequences, all whole\n$/)
  assert.equal((await run(t, 'export', data)).stdout.split('\n').length, all + 2)
  for (const name of [...looking, 'repair']) {
    const { code, stdout } = await Headgate.run(t, ['outbox', name, '--help'])
    assert.equal(code, 0)
    assert.match(stdout, /--data <dir>.*--json.*Example:/s)
  }
})

test('who only looks touches nothing of a damaged outbox, and repair keeps what is whole', async (t) => {
  const damages: Record<string, (folder: string) => Promise<void>> = {
    'a flipped bit': async (folder) => {
      const name = (await readdir(folder)).find((name) => name.endsWith('.log'))!
      const bytes = await readFile(join(folder, name))
      bytes[bytes.length >> 1]! ^= 1
      await writeFile(join(folder, name), bytes)
    },
    'no CURRENT': (folder) => rm(join(folder, 'CURRENT')),
    'no manifest': async (folder) => {
      for (const name of await readdir(folder))
        if (name.startsWith('MANIFEST')) await rm(join(folder, name))
    },
  }
  for (const [what, damage] of Object.entries(damages)) {
    const data = await stopped(t)
    const folder = join(data, 'outbox')
    await damage(folder)
    const before = await contentOf(folder)
    const { code, stdout } = await run(t, 'verify', data, '--json')
    assert.equal(code, 1, what)
    assert.equal(JSON.parse(stdout).damage.length, 1, what)
    await refuses(t, ['cat'], data, /outbox repair --data/)
    assert.deepEqual(await contentOf(folder), before, what)

    assert.equal((await run(t, 'repair', data)).code, 0, what)
    assert.equal((await readdir(join(data, 'damaged'))).length, 1)
    const after = JSON.parse((await run(t, 'verify', data, '--json')).stdout)
    assert.deepEqual(after, { sequences: all, damage: [] }, what)
    const [exported] = [(await run(t, 'export', data)).stdout.split('\n').length - 2]
    assert.ok(exported! >= (what === 'a flipped bit' ? all / 2 : all), `${what}: ${exported}`)
  }
})

test('where there is no outbox of ours, each command says so and makes none', async (t) => {
  const data = await temporaryDirectory(t)
  const names = ['verify', 'repair']
  await refuses(t, [...looking, 'repair'], join(data, 'missing'), /holds no outbox/)
  await mkdir(join(data, 'outbox'))
  await refuses(t, names, data, /holds no outbox/)
  await writeFile(join(data, 'outbox', 'notes.txt'), 'mine')
  await refuses(t, names, data, /holds no outbox/)
  assert.deepEqual(await readdir(join(data, 'outbox')), ['notes.txt'])

  const others = await temporaryDirectory(t)
  const store = await openLevel(join(others, 'outbox'))
  await store.write([{ key: Buffer.from('user/1'), value: Buffer.from('x') }], { sync: true })
  await store.close()
  await refuses(t, names, others, /another program/)
})

test('an outbox that another process holds, or that may not be read, is left alone', async (t) => {
  const held = await stopped(t)
  const store = await openLevel(join(held, 'outbox'))
  cleanUp(t, () => store.close())
  await refuses(t, ['ls', 'repair'], held, /another running agent holds it/)

  if (process.getuid?.() !== 0) return
  const closed = await stopped(t)
  await chmod(closed, 0o755)
  await chmod(join(closed, 'outbox'), 0o755)
  for (const name of await readdir(join(closed, 'outbox')))
    await chmod(join(closed, 'outbox', name), 0o600)
  for (const name of ['ls', 'repair']) {
    const through = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups']
    const { code, stderr } = await Headgate.run(t, ['outbox', name, '--data', closed], { through })
    assert.equal(code, 1)
    assert.match(stderr, /^headgate: [^\n]*no permission[^\n]*\n$/, name)
  }
})

/** LevelDB's own log and lock apart: whoever opens it writes those. */
async function contentOf(folder: string): Promise<Record<string, string>> {
  const content: Record<string, string> = {}
  for (const name of await readdir(folder))
    if (name !== 'LOG' && name !== 'LOG.old' && name !== 'LOCK')
      content[name] = (await readFile(join(folder, name))).toString('base64')
  return content
}
