import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import manifest from '../../../package.json' with { type: 'json' }
import { root } from '../../../shared/package/paths.ts'
import { needs } from '../../support/needs.ts'

export const { version } = manifest
export const dist = join(root, 'dist')

/** Path of what `npm run package` or `npm run package:collector` has made. */
export function built(name: string): string {
  const path = join(dist, name)
  assert.ok(existsSync(path), `${path} is missing: npm run package, npm run package:collector`)
  return path
}

/** The executable for this machine. */
export function executable(program: 'agent' | 'collector'): string {
  return built(`headgate-${program}-linux-${process.arch}`)
}

/**
 * What runs the arm64 executable on this machine.
 *
 * @returns undefined when the test has been skipped
 */
export function arm64(t: TestContext): readonly string[] | undefined {
  if (process.arch === 'arm64') return []
  const qemu = needs(t, 'qemu-aarch64-static')
  const libraries = '/usr/aarch64-linux-gnu'
  if (!qemu) return undefined
  assert.ok(existsSync(join(libraries, 'lib/libstdc++.so.6')), 'needs libstdc++6-arm64-cross')
  return [qemu, '-L', libraries]
}

/** Builds a program from this tree, or another, into a folder. */
export function build(
  program: 'agent' | 'collector',
  args: readonly string[],
  options: { tree?: string; env?: NodeJS.ProcessEnv } = {},
): void {
  const { tree = root, env } = options
  execFileSync(process.execPath, [join(tree, program, 'package', 'build.ts'), ...args], {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, ...env },
  })
}
