import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Document } from '../../collector/log/document.ts'
import { systemClock, systemRandom } from '../../shared/system.ts'
import { MemoryNotes } from '../support/memory-notes.ts'

const documentOn = (notes: MemoryNotes) =>
  new Document<number>({
    notes,
    name: 'count',
    clock: systemClock,
    random: systemRandom,
    parse: (text) => JSON.parse(text),
  })
const plusOne = (value = 0) => ({ value: value + 1, answer: value + 1 })

test('changes by several collectors are all made, and each is answered with what it made', async () => {
  const notes = new MemoryNotes()
  const documents = [documentOn(notes), documentOn(notes)]
  notes.before = () => new Promise((resolve) => setImmediate(resolve))
  const answers = await Promise.all(
    Array.from({ length: 40 }, (_, i) => documents[i % 2]!.change(plusOne)),
  )
  assert.deepEqual(
    answers.sort((a, b) => a - b),
    Array.from({ length: 40 }, (_, i) => i + 1),
  )
  assert.equal(await documents[0]!.read(), 40)
  assert.ok(notes.writes < 20, `changes share writes: ${notes.writes}`)
})

test('what another collector has changed is judged as it is, also where nothing comes of it', async () => {
  const notes = new MemoryNotes()
  const [mine, other] = [documentOn(notes), documentOn(notes)]
  await mine.change(() => ({ value: 1, answer: undefined }))
  await other.change(() => ({ value: 2, answer: undefined }))
  const refuse = (value: number | undefined) => {
    if (value === 1) throw new Error('it is one')
    return { value, answer: value }
  }
  assert.equal(await mine.change(refuse), 2)
})

test('a change that throws leaves the others that share its write', async () => {
  const notes = new MemoryNotes()
  const document = documentOn(notes)
  const all = await Promise.allSettled([
    document.change(plusOne),
    document.change(() => {
      throw new Error('no')
    }),
    document.change(plusOne),
  ])
  assert.deepEqual(
    all.map(({ status }) => status),
    ['fulfilled', 'rejected', 'fulfilled'],
  )
  assert.equal(await document.read(), 2)
})

test('after a write that nobody answered for the next change is of what is there', async () => {
  const notes = new MemoryNotes()
  const document = documentOn(notes)
  await document.change(plusOne)
  notes.after = (call) => {
    if (call === 'write') throw new Error('no answer')
  }
  await assert.rejects(document.change(plusOne), /no answer/)
  notes.after = () => {}
  assert.equal(await document.change(plusOne), 3)
})
