import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { storeFormat } from '../../../agent/outbox/format.ts'
import { build, version } from './built.ts'
import { linkedTree } from './tree.ts'

/** What the next version might be: its number, and a store of the next format, which holds one thing more. */
const edits: [file: string, from: string, to: string][] = [
  ['package.json', `"version": "${version}"`, '"version": "99.0.0"'],
  ['agent/outbox/format.ts', `storeFormat = ${storeFormat}`, `storeFormat = ${storeFormat + 1}`],
  [
    'agent/outbox/format.ts',
    'Migration>> = {',
    `Migration>> = {
      ${storeFormat}: (store) =>
        store.write([{ key: Uint8Array.of(0x7a), value: Uint8Array.of(1) }], { sync: true }),
    `,
  ],
]

/** Builds the package of a version that does not exist yet. */
export function newerPackage(t: TestContext): string {
  const tree = linkedTree(t)
  for (const [file, from, to] of edits) {
    const path = join(tree, file)
    const text = readFileSync(path, 'utf8')
    if (!text.includes(from)) throw new Error(`${file} no longer says ${from}`)
    rmSync(path) // The link, so that the original stays.
    writeFileSync(path, text.replace(from, to))
  }
  const out = join(tree, 'dist')
  build('agent', ['--target', process.arch, '--level', '0', '--out', out], {
    tree,
    env: { SOURCE_DATE_EPOCH: '1767225600' },
  })
  return join(out, `headgate-agent_99.0.0_${process.arch === 'arm64' ? 'arm64' : 'amd64'}.deb`)
}
