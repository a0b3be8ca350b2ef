import assert from 'node:assert/strict'
import type { LogEngine } from '../../collector/log/engine.ts'
import { moved, type Notes } from '../../collector/log/notes.ts'

type Check = (title: string, body: (storage: NotesStorage) => Promise<void>) => void

interface NotesStorage {
  open(): Promise<LogEngine>
  shared: boolean
}

/** Writes, and expects to be taken. */
async function put(notes: Notes, name: string, text: string | undefined, expected: number) {
  const revision = await notes.write(name, text, expected)
  assert.ok(revision !== moved, `${name} has moved`)
  return revision
}

/** What the notes of every log engine do. */
export function notesContract(check: Check): void {
  check('a note is what was written last, when the log is opened again too', async ({ open }) => {
    {
      await using log = await open()
      const { notes } = log
      assert.deepEqual(await notes.read('sinks/a'), { text: undefined, revision: 0 })
      const first = await put(notes, 'sinks/a', 'first', 0)
      const second = await put(notes, 'sinks/a', 'second µ', first)
      assert.ok(second > first)
      await put(notes, 'sinks/b', 'other', 0)
      assert.deepEqual(await notes.read('sinks/a'), { text: 'second µ', revision: second })
    }
    await using log = await open()
    const { text, revision } = await log.notes.read('sinks/a')
    assert.equal(text?.trim(), 'second µ')
    await put(log.notes, 'sinks/a', 'third', revision)
  })

  check(
    'a note that is written over what it was not made from stays as it is',
    async ({ open }) => {
      await using log = await open()
      const { notes } = log
      const first = await put(notes, 'sinks/a', 'first', 0)
      assert.equal(await notes.write('sinks/a', 'anew', 0), moved)
      const second = await put(notes, 'sinks/a', 'second', first)
      assert.equal(await notes.write('sinks/a', 'late', first), moved)
      assert.equal(await notes.write('sinks/a', undefined, first), moved)
      assert.deepEqual(await notes.read('sinks/a'), { text: 'second', revision: second })
      assert.equal(await notes.write('sinks/none', 'late', second), moved)
    },
  )

  check('of writers that count at the same time each is counted once', async ({ open, shared }) => {
    await using one = await open()
    await using two = shared ? await open() : undefined
    const count = async (notes: Notes, times: number) => {
      for (let done = 0; done < times; ) {
        const { text = '0', revision } = await notes.read('sinks/count')
        if ((await notes.write('sinks/count', String(Number(text) + 1), revision)) !== moved)
          done += 1
      }
    }
    await Promise.all([count(one.notes, 10), count((two ?? one).notes, 10), count(one.notes, 10)])
    for (const each of two ? [one, two] : [one])
      assert.equal((await each.notes.read('sinks/count')).text, '30')
  })

  check('a note that was removed is not there, and can be made again', async ({ open }) => {
    await using log = await open()
    const { notes } = log
    const first = await put(notes, 'groups/a', 'first', 0)
    const gone = await put(notes, 'groups/a', undefined, first)
    assert.deepEqual(await notes.list('groups/'), [])
    assert.equal(await notes.write('groups/a', 'late', first), moved)
    assert.deepEqual(await notes.read('groups/a'), { text: undefined, revision: gone })
    await put(notes, 'groups/a', 'again', gone)
    assert.equal((await notes.read('groups/a')).text, 'again')
  })

  check('notes are listed by what their names begin with', async ({ open }) => {
    await using log = await open()
    const { notes } = log
    const names = ['groups/readings.etl', 'groups/readings.etl-2', 'groups/alerts._x%=.y']
    for (const name of [...names, 'sinks/groups']) await put(notes, name, 'x'.repeat(20_000), 0)
    assert.deepEqual((await notes.list('groups/')).sort(), names.sort())
    assert.deepEqual((await notes.list('groups/readings.')).sort(), names.slice(1))
  })
}
