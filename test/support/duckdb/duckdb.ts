import { execFile } from 'node:child_process'
import { glob } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { pipFolder, python } from '../pip.ts'

const run = promisify(execFile)
const requirements = fileURLToPath(new URL('requirements.txt', import.meta.url))
const s3Requirements = fileURLToPath(new URL('s3-requirements.txt', import.meta.url))
const program = `
import json, sys, duckdb
database = duckdb.connect()
for each in sys.argv[2:]:
    database.execute(each)
plain = lambda value: str(value) if value != value else value
found = database.execute(sys.argv[1])
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
  return folder === undefined ? undefined : (sql) => ask(folder, sql)
}

/**
 * A DuckDB that reads `s3://`, from a server as given: of the version in s3-requirements.txt, since its
 * extension for that is on PyPI for some alone.
 *
 * @returns undefined when it cannot be had and the test was skipped
 */
export async function duckdbOnS3(
  t: Pick<TestContext, 'skip'>,
  server: {
    endpoint: string
    region: string
    credentials: { accessKeyId: string; secretAccessKey: string }
  },
): Promise<Query | undefined> {
  const folder = await pipFolder(t, s3Requirements)
  if (folder === undefined) return undefined
  const { endpoint, region, credentials } = server
  const [extension] = await Array.fromAsync(glob(join(folder, '**/httpfs.duckdb_extension')))
  const { host, protocol } = new URL(endpoint)
  const secret = `KEY_ID '${credentials.accessKeyId}', SECRET '${credentials.secretAccessKey}'`
  const place = `ENDPOINT '${host}', REGION '${region}', URL_STYLE 'path'`
  const before = [
    `LOAD '${extension}'`,
    `CREATE SECRET (TYPE s3, ${secret}, ${place}, USE_SSL ${protocol === 'https:'})`,
  ]
  return (sql) => ask(folder, sql, before)
}

async function ask(
  folder: string,
  sql: string,
  before: readonly string[] = [],
): Promise<Record<string, unknown>[]> {
  const options = { env: { ...process.env, PYTHONPATH: folder, TZ: 'UTC' }, maxBuffer: 2 ** 28 }
  const { stdout } = await run(python, ['-c', program, sql, ...before], options)
  return JSON.parse(stdout)
}
