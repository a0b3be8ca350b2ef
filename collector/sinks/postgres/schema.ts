import type { ClientBase } from 'pg'
import { type Stream, streams } from '../../../shared/reading.ts'
import { columns } from '../columns.ts'
import { SinkFailure } from '../sink.ts'
import { sqlTypes } from './rows.ts'

/** The tables' names are the streams'. */
export interface Place {
  schema: string
  stream: Stream
}

/** What a migration is told of the database. */
export interface Surroundings {
  schema: string
  /** Where TimescaleDB's functions are; undefined where it is not installed. */
  timescale: string | undefined
}

/** Statements that bring the tables from one version to the next. Never changed, only added to. */
export type Migration = (around: Surroundings) => string[]

export const migrations: readonly Migration[] = [
  ({ schema, timescale }) => [
    `CREATE TABLE ${schema}.positions (
      origin text, sink text, stream text, log_partition smallint, next bigint NOT NULL,
      moved_at timestamptz NOT NULL, PRIMARY KEY (origin, sink, stream, log_partition))`,
    ...streams.flatMap((stream) => {
      const table = `${schema}.${stream}`
      const fields = columns.map(
        ({ name, type, nullable }) => `${name} ${sqlTypes[type]}${nullable ? '' : ' NOT NULL'}`,
      )
      const definition = `CREATE TABLE ${table} (${fields.join(', ')}, PRIMARY KEY (${[...keyOf(stream), 'time'].join(', ')}))`
      return [
        ...(timescale
          ? [
              definition,
              `SELECT ${timescale}.create_hypertable('${table}', 'time', chunk_time_interval => INTERVAL '7 days', create_default_indexes => false)`,
            ]
          : [
              `${definition} PARTITION BY RANGE (time)`,
              // Times that are far off have no partition of their own.
              `CREATE TABLE ${table}_default PARTITION OF ${table} DEFAULT`,
            ]),
        stream === 'readings' || stream === 'alerts'
          ? `CREATE INDEX ON ${table} (device, metric, time)`
          : `CREATE INDEX ON ${table} (time)`,
      ]
    }),
  ],
]

/** A record's identity. A ledger has no number, and is told apart by its place in the log. */
export function keyOf(stream: Stream): string[] {
  const of = stream === 'ledger' ? ['log_partition', 'log_offset'] : ['sequence']
  return ['agent', 'incarnation', 'lane', ...of]
}

/**
 * Makes the tables, or brings them to the newest version, in one transaction; of those who come together
 * one does it.
 *
 * @throws SinkFailure where a newer version has been here
 */
export async function migrate(
  client: ClientBase,
  schema: string,
  steps: readonly Migration[] = migrations,
): Promise<void> {
  if ((await versionOf(client, schema)) === steps.length) return
  await client.query('BEGIN')
  await lockSchema(client, schema)
  const { rowCount } = await client.query('SELECT FROM pg_namespace WHERE nspname = $1', [schema])
  if (rowCount === 0) await client.query(`CREATE SCHEMA ${schema}`)
  await client.query(
    `CREATE TABLE IF NOT EXISTS ${schema}.schema_version (
      version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())`,
  )
  const version = await versionOf(client, schema)
  if (version > steps.length)
    throw new SinkFailure(
      'SINK_REFUSED',
      `the tables in schema ${schema} are of version ${version}, and this program knows ${steps.length}: run a newer one`,
    )
  const timescale = await timescaleSchema(client)
  for (const [index, step] of steps.entries()) {
    if (index < version) continue
    for (const statement of step({ schema, timescale })) await client.query(statement)
    await client.query(`INSERT INTO ${schema}.schema_version (version) VALUES ($1)`, [index + 1])
  }
  await client.query('COMMIT')
}

async function versionOf(client: ClientBase, schema: string): Promise<number> {
  const { rows } = await client.query('SELECT to_regclass($1) IS NOT NULL AS there', [
    `${schema}.schema_version`,
  ])
  if (!rows[0].there) return 0
  const found = await client.query(
    `SELECT coalesce(max(version), 0) AS version FROM ${schema}.schema_version`,
  )
  return found.rows[0].version
}

async function timescaleSchema(client: ClientBase): Promise<string | undefined> {
  const { rows } = await client.query(
    `SELECT quote_ident(nspname) AS schema FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace
     WHERE extname = 'timescaledb'`,
  )
  return rows[0]?.schema
}

/** Until the end of the transaction nobody else changes tables. */
async function lockSchema(client: ClientBase, schema: string): Promise<void> {
  await client.query('SELECT pg_advisory_xact_lock(hashtextextended($1, 0))', [
    `headgate ${schema}`,
  ])
}

/** Readings from before that, and from days that have not begun, have a wrong time: no partition of their own. */
const firstDay = Date.UTC(2000, 0, 1) / 86_400_000
/** Times come from outside, and a partition costs every query a little. */
const maxPartitions = 2_000

/** Makes partitions as times come up. Where the table is none of ours to divide, nothing. */
export class Partitions {
  readonly #client: ClientBase
  readonly #place: Place
  readonly #period: 'day' | 'month'
  readonly #isDivided: boolean
  readonly #known: Set<string>

  static async open(
    client: ClientBase,
    place: Place,
    period: 'day' | 'month',
  ): Promise<Partitions> {
    const table = `${place.schema}.${place.stream}`
    const kind = await client.query('SELECT relkind FROM pg_class WHERE oid = $1::regclass', [
      table,
    ])
    const { rows } = await client.query(
      `SELECT relname FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
       WHERE inhparent = $1::regclass`,
      [table],
    )
    const known = new Set<string>(rows.map(({ relname }) => relname))
    return new Partitions(client, place, period, kind.rows[0].relkind === 'p', known)
  }

  private constructor(
    client: ClientBase,
    place: Place,
    period: 'day' | 'month',
    isDivided: boolean,
    known: Set<string>,
  ) {
    this.#client = client
    this.#place = place
    this.#period = period
    this.#isDivided = isDivided
    this.#known = known
  }

  /** Days since 1970 that rows are of, with the day on which they arrived. */
  async make(days: readonly { day: number; arrived: number }[]): Promise<void> {
    if (!this.#isDivided) return
    for (const { day, arrived } of days) {
      if (day < firstDay || day > arrived + 1 || this.#known.size >= maxPartitions) continue
      const { name, from, to } = this.#periodOf(day)
      if (this.#known.has(name)) continue
      await this.#add(name, from, to)
      this.#known.add(name)
    }
  }

  async #add(name: string, from: string, to: string): Promise<void> {
    const { schema, stream } = this.#place
    const [table, part] = [`${schema}.${stream}`, `${schema}.${name}`]
    const range = `FROM ('${from}') TO ('${to}')`
    await this.#client.query('BEGIN')
    try {
      // Whoever reads the table for long would have everybody behind us wait.
      await this.#client.query(`SET LOCAL lock_timeout = '5s'`)
      await lockSchema(this.#client, schema)
      const { rows } = await this.#client.query('SELECT to_regclass($1) IS NOT NULL AS there', [
        part,
      ])
      if (!rows[0].there) {
        await this.#client.query(`CREATE TABLE ${part} (LIKE ${table} INCLUDING DEFAULTS)`)
        // Rows that came before their day had begun.
        await this.#client.query(
          `WITH moved AS (DELETE FROM ${table}_default WHERE time >= '${from}' AND time < '${to}' RETURNING *)
           INSERT INTO ${part} SELECT * FROM moved`,
        )
        await this.#client.query(
          `ALTER TABLE ${table} ATTACH PARTITION ${part} FOR VALUES ${range}`,
        )
      }
      await this.#client.query('COMMIT')
    } catch (error) {
      await this.#client.query('ROLLBACK')
      // Somebody has divided the table in another way: what is there will do.
      if ((error as { code?: string }).code !== overlaps) throw error
    }
  }

  #periodOf(day: number): { name: string; from: string; to: string } {
    const date = new Date(day * 86_400_000)
    const [year, month] = [date.getUTCFullYear(), date.getUTCMonth()]
    const isDay = this.#period === 'day'
    const start = isDay ? date : new Date(Date.UTC(year, month, 1))
    const end = isDay ? new Date((day + 1) * 86_400_000) : new Date(Date.UTC(year, month + 1, 1))
    const text = (at: Date) => at.toISOString().slice(0, 10)
    const name = text(start)
      .slice(0, isDay ? 10 : 7)
      .replaceAll('-', '_')
    return {
      name: `${this.#place.stream}_${name}`,
      from: `${text(start)} 00:00:00+00`,
      to: `${text(end)} 00:00:00+00`,
    }
  }
}

const overlaps = '42P17'
