import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { temporaryDirectory } from '../support/temporary.ts'
import { build } from './support/built.ts'

test('two builds of the same sources are the same, byte for byte', async (t) => {
  const [first, second] = [await temporaryDirectory(t), await temporaryDirectory(t)]
  const args = ['--target', 'x64', '--level', '0', '--out']
  const SOURCE_DATE_EPOCH = '1767225600'
  build('agent', [...args, first], { env: { SOURCE_DATE_EPOCH } })
  const umask = process.umask(0o077)
  t.after(() => process.umask(umask))
  build('agent', [...args, second], { env: { SOURCE_DATE_EPOCH, TZ: 'Asia/Tokyo', LANG: 'C' } })
  const files = readdirSync(first).sort()
  assert.deepEqual(files, readdirSync(second).sort())
  assert.ok(files.some((file) => file.endsWith('.deb')))
  const same = (file: string) =>
    readFileSync(`${first}/${file}`).equals(readFileSync(`${second}/${file}`))
  assert.deepEqual(
    files.filter((file) => !same(file)),
    [],
  )
})
