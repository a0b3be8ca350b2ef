import { execFile } from 'node:child_process'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { pipFolder, python } from '../pip.ts'

const run = promisify(execFile)
const requirements = fileURLToPath(new URL('requirements.txt', import.meta.url))
const program = `
import json, sys, duckdb
plain = lambda value: str(value) if value != value else value
found = duckdb.connect().execute(sys.argv[1])
names = [each[0] for each in found.description]
print(json.dumps([dict(zip(names, map(plain, row))) for row in found.fetchall()], default=str))
`

/** Runs one SQL statement on a database in memory; rows as objects, times, dates and NaN as text. */
export type Query = (sql: string) => Promise<Record<string, unknown>[]>

/**
 * DuckDB of the version in requirements.txt, in a Python environment that is made once.
 *
 * @returns undefined when it cannot be had and the test was skipped
 */
export async function duckdb(t: Pick<TestContext, 'skip'>): Promise<Query | undefined> {
  const folder = await pipFolder(t, requirements)
  if (folder === undefined) return undefined
  return async (sql) => {
    const options = { env: { ...process.env, PYTHONPATH: folder, TZ: 'UTC' }, maxBuffer: 2 ** 28 }
    const { stdout } = await run(python, ['-c', program, sql], options)
    return JSON.parse(stdout)
  }
}
