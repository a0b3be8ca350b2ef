import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'

interface Lock {
  packages: Record<string, { version?: string; optionalDependencies?: Record<string, string> }>
}

test('the lockfile names every optional package, also those of other platforms, as npm ci demands', async () => {
  const file = new URL('../../package-lock.json', import.meta.url)
  const { packages } = JSON.parse(await readFile(file, 'utf8')) as Lock
  const missing = Object.values(packages).flatMap(({ optionalDependencies = {} }) =>
    Object.entries(optionalDependencies).filter(([name, version]) => {
      const found = packages[`node_modules/${name}`]
      return found === undefined || (/^\d/.test(version) && found.version !== version)
    }),
  )
  assert.deepEqual(missing, [])
})
