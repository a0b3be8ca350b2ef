import assert from 'node:assert/strict'
import { appendFile, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { ChainCheck, type Entry, Journal } from '../../collector/fleet/journal.ts'
import { temporaryDirectory } from '../support/temporary.ts'

interface Fact {
  what: string
}

async function reopened(path: string): Promise<string[]> {
  const found: string[] = []
  const journal = await Journal.open<Fact>(
    path,
    () => 0,
    ({ fact }) => found.push(fact.what),
  )
  await journal[Symbol.asyncDispose]()
  return found
}

async function written(path: string, count = 5): Promise<void> {
  await using journal = await Journal.open<Fact>(
    path,
    () => Date.UTC(2026, 0, 31),
    () => {},
  )
  await Promise.all(
    Array.from({ length: count }, (_, i) => journal.append('alice', { what: `${i}` }).durable),
  )
}

test('what was appended is there again, in order, and the chain goes on behind it', async (t) => {
  const path = join(await temporaryDirectory(t), 'audit.jsonl')
  await written(path)
  await written(path, 2)
  assert.deepEqual(await reopened(path), ['0', '1', '2', '3', '4', '0', '1'])
  const check = new ChainCheck<Fact>()
  for (const line of (await readFile(path, 'utf8')).trim().split('\n'))
    assert.ok(!('message' in check.next(line)))
  assert.equal(check.n, 7)
})

test('a last line that was cut by a power cut is taken off, for nobody was told of it', async (t) => {
  const path = join(await temporaryDirectory(t), 'audit.jsonl')
  await written(path)
  const whole = await readFile(path)
  await appendFile(path, '{"n":6,"at":"20')
  assert.deepEqual(await reopened(path), ['0', '1', '2', '3', '4'])
  assert.deepEqual(await readFile(path), whole)
})

test('nothing that an agent says ends a line', async (t) => {
  const path = join(await temporaryDirectory(t), 'audit.jsonl')
  const what = 'a\u2028b\u2029c\rd\ne\u0085f\ud800 🚰'.repeat(20_000)
  {
    await using journal = await Journal.open<Fact>(
      path,
      () => 0,
      () => {},
    )
    await journal.append('gw-001', { what }).durable
    await journal.append('gw-001', { what: 'last' }).durable
  }
  assert.deepEqual(await reopened(path), [what, 'last'])
})

for (const [what, change] of [
  ['changed', (lines: string[]) => lines.with(2, lines[2]!.replace('alice', 'bobby'))],
  ['taken out', (lines: string[]) => lines.toSpliced(2, 1)],
  ['put in', (lines: string[]) => lines.toSpliced(2, 0, lines[2]!)],
  ['swapped', (lines: string[]) => lines.with(1, lines[2]!).with(2, lines[1]!)],
] as const)
  test(`a line that was ${what} is found, and the journal is not gone on with`, async (t) => {
    const path = join(await temporaryDirectory(t), 'audit.jsonl')
    await written(path)
    const lines = (await readFile(path, 'utf8')).trim().split('\n')
    await writeFile(path, `${change(lines).join('\n')}\n`)
    await assert.rejects(reopened(path), { name: 'JournalBroken' })
    const check = new ChainCheck<Fact>()
    const results = change(lines).map((line) => check.next(line))
    assert.ok(results.some((read: Entry<Fact> | object) => 'message' in read))
  })
