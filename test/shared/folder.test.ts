import assert from 'node:assert/strict'
import { stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { makeFolder } from '../../shared/folder.ts'
import { temporaryDirectory } from '../support/temporary.ts'

test('folders are made with those above them, and the first of them is named', async (t) => {
  const directory = await temporaryDirectory(t)
  assert.equal(await makeFolder(join(directory, 'a/b/c')), join(directory, 'a'))
  assert.equal(await makeFolder(join(directory, 'a/b/c')), undefined)
  assert.ok((await stat(join(directory, 'a/b/c'))).isDirectory())
})

test('where none can be made the system says why, and it comes to an end', async (t) => {
  const directory = await temporaryDirectory(t)
  await writeFile(join(directory, 'file'), '')
  await assert.rejects(makeFolder(join(directory, 'file')), { code: 'ENOTDIR' })
  await assert.rejects(makeFolder(join(directory, 'file/below')), { code: 'ENOTDIR' })
  await assert.rejects(makeFolder('/proc/none/such'), { code: 'ENOENT' })
})
