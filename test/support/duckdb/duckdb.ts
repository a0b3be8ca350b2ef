import { execFile } from 'node:child_process'
import { access, mkdir, readFile, rename, rm } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { absent } from '../needs.ts'

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
  const [, version] = /duckdb==(\S+)/.exec(await readFile(requirements, 'utf8'))!
  const cache = process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache')
  const folder = join(cache, 'headgate-tests', `duckdb-${version}`)
  const query: Query = async (sql) => {
    const options = { env: { ...process.env, PYTHONPATH: folder, TZ: 'UTC' }, maxBuffer: 2 ** 28 }
    const { stdout } = await run('/usr/bin/python3', ['-c', program, sql], options)
    return JSON.parse(stdout)
  }
  try {
    await access(folder)
    return query
  } catch {
    // Not made yet.
  }
  const aside = `${folder}.${process.pid}`
  try {
    await mkdir(join(folder, '..'), { recursive: true })
    const args = ['-m', 'pip', 'install', '--quiet', '--require-hashes', '--only-binary', ':all:']
    await run('/usr/bin/python3', [...args, '--target', aside, '-r', requirements])
    await rename(aside, folder)
    return query
  } catch (error) {
    await rm(aside, { recursive: true, force: true })
    absent(t, `needs DuckDB, which pip installs: apt-get install python3-pip: ${error}`)
    return undefined
  }
}
