import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { root } from '../../../shared/package/paths.ts'
import { cleanUp } from '../../support/clean-up.ts'
import { dist } from './built.ts'

const parts = ['agent', 'collector', 'shared', 'docs', 'node_modules', 'package.json']

/** Another tree of the same sources, to build from. Its files are links: write none, put others in their place. */
export function linkedTree(t: TestContext): string {
  mkdirSync(dist, { recursive: true })
  // Beside what is built, since files are only linked there.
  const tree = mkdtempSync(join(dist, '.tree-'))
  cleanUp(t, () => rmSync(tree, { recursive: true, force: true }))
  const all = [...parts, 'package-lock.json', 'LICENSE'].map((part) => join(root, part))
  execFileSync('cp', ['-al', ...all, tree])
  return tree
}
