import { Socket } from 'node:net'
import { finished } from 'node:stream/promises'
import pg from 'pg'
import { from as copyFrom } from 'pg-copy-streams'
import { columns } from '../columns.ts'
import type { PostgresConfig } from '../postgres.ts'
import {
  type Refusal,
  type Refuse,
  type Sink,
  type SinkContext,
  SinkFailure,
  type Slice,
} from '../sink.ts'
import { Rows } from './rows.ts'
import { keyOf, migrate, Partitions } from './schema.ts'

const connectTimeoutMs = 10_000
/** A statement that takes longer is given up, here and by the server. */
const statementTimeoutMs = 120_000

const names = columns.map(({ name }) => name).join(', ')

/**
 * A row a record, in the stream's table. What a slice brings and the position behind it are one
 * transaction, so whatever dies when, a record is there once.
 */
export class PostgresSink implements Sink {
  readonly positions: ReadonlyMap<number, number>
  readonly #client: pg.Client
  readonly #socket: Socket
  readonly #context: SinkContext
  readonly #table: string
  readonly #schema: string
  readonly #partitions: Partitions
  /** By partition, what the table of positions says as far as we know. */
  readonly #next: Map<number, number>
  #isBroken = false

  /** @throws SinkFailure */
  static async open(config: PostgresConfig, context: SinkContext): Promise<PostgresSink> {
    const { schema, partition, url, password } = config
    const { origin, name, stream } = context
    const socket = new Socket()
    const client = new pg.Client({
      connectionString: url,
      ...(password !== undefined && { password }),
      stream: () => socket,
      keepAlive: true,
      connectionTimeoutMillis: connectTimeoutMs,
      query_timeout: statementTimeoutMs + 10_000,
      statement_timeout: statementTimeoutMs,
      application_name: `headgate ${name}`,
    })
    // An idle connection may end too: the next statement says so.
    client.on('error', () => {})
    try {
      await client.connect()
      await migrate(client, schema)
      const partitions = await Partitions.open(client, { schema, stream }, partition)
      const { rows } = await client.query(
        `SELECT log_partition, next FROM ${schema}.positions
         WHERE origin = $1 AND sink = $2 AND stream = $3`,
        [origin, name, stream],
      )
      const next = new Map<number, number>(
        rows.map((row) => [row.log_partition as number, Number(row.next)]),
      )
      return new PostgresSink({ client, socket, context, schema, partitions, next })
    } catch (error) {
      socket.destroy()
      throw failureOf(error)
    }
  }

  private constructor(opened: {
    client: pg.Client
    socket: Socket
    context: SinkContext
    schema: string
    partitions: Partitions
    next: Map<number, number>
  }) {
    this.#client = opened.client
    this.#socket = opened.socket
    this.#context = opened.context
    this.#schema = opened.schema
    this.#table = `${opened.schema}.${opened.context.stream}`
    this.#partitions = opened.partitions
    this.#next = opened.next
    this.positions = new Map(opened.next)
  }

  async write(slice: Slice, refuse: Refuse, signal: AbortSignal): Promise<'durable'> {
    const rows = new Rows(slice.records)
    const giveUp = () => this.#socket.destroy()
    signal.addEventListener('abort', giveUp, { once: true })
    try {
      signal.throwIfAborted()
      await this.#partitions.make(rows.days)
      await this.#client.query('BEGIN')
      if (!slice.again) await this.#move(slice)
      const refused = [...rows.refused]
      if (rows.count > 0) await this.#put(rows, 0, rows.count, slice.again, refused)
      if (refused.length > 0) await refuse(refused)
      await this.#client.query('COMMIT')
      if (!slice.again) this.#next.set(slice.partition, slice.to)
      return 'durable'
    } catch (error) {
      this.#isBroken = true
      throw failureOf(error)
    } finally {
      signal.removeEventListener('abort', giveUp)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // In the middle of a transaction, or of nobody knows what, there is nothing to say good-bye to.
    if (!this.#isBroken) await this.#client.end().catch(() => {})
    this.#socket.destroy()
  }

  /** @throws SinkFailure when it is not where we left it */
  async #move({ partition, to }: Slice): Promise<void> {
    const { origin, name, stream } = this.#context
    const { rowCount } = await this.#client.query(
      `INSERT INTO ${this.#schema}.positions AS p VALUES ($1, $2, $3, $4, $5, now())
       ON CONFLICT (origin, sink, stream, log_partition)
       DO UPDATE SET next = EXCLUDED.next, moved_at = EXCLUDED.moved_at WHERE p.next = $6`,
      [origin, name, stream, partition, to, this.#next.get(partition) ?? -1],
    )
    if (rowCount === 0)
      throw new SinkFailure('SINK_MOVED', `another collector runs the sink ${name} on this log`)
  }

  /**
   * Puts some of the rows into the table. Where one of them is not taken, halves are tried, down to the one.
   *
   * @param merges rows of the same identity are replaced
   */
  async #put(
    rows: Rows,
    from: number,
    to: number,
    merges: boolean,
    refused: Refusal[],
  ): Promise<void> {
    await this.#client.query('SAVEPOINT put')
    try {
      if (merges) await this.#merge(rows.copy(from, to))
      else await this.#copy(this.#table, rows.copy(from, to))
      await this.#client.query('RELEASE SAVEPOINT put')
      return
    } catch (error) {
      if (!isAboutRows(error)) throw error
      await this.#client.query('ROLLBACK TO SAVEPOINT put')
      // They are there already: written under another name or from a log that was put back.
      if (error.code === uniqueViolation && !merges) return this.#put(rows, from, to, true, refused)
      if (to - from === 1) {
        refused.push({ record: rows.records[from]!, reason: `${error.code}: ${error.message}` })
        return
      }
    }
    const middle = Math.floor((from + to) / 2)
    await this.#put(rows, from, middle, merges, refused)
    await this.#put(rows, middle, to, merges, refused)
  }

  async #merge(data: Buffer): Promise<void> {
    const again = 'pg_temp.headgate_again'
    await this.#client.query(
      `CREATE TEMPORARY TABLE IF NOT EXISTS headgate_again (LIKE ${this.#table}) ON COMMIT DELETE ROWS`,
    )
    await this.#client.query(`TRUNCATE ${again}`)
    await this.#copy(again, data)
    await this.#client.query(`ANALYZE ${again}`)
    // A record's time may have been repaired since, so every partition is looked at: by its index.
    await this.#client.query('SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off')
    const isSame = keyOf(this.#context.stream).map((name) => `t.${name} = a.${name}`)
    await this.#client.query(
      `DELETE FROM ${this.#table} t USING ${again} a WHERE ${isSame.join(' AND ')}`,
    )
    await this.#client.query(`INSERT INTO ${this.#table} (${names}) SELECT ${names} FROM ${again}`)
  }

  async #copy(table: string, data: Buffer): Promise<void> {
    const stream = this.#client.query(
      copyFrom(`COPY ${table} (${names}) FROM STDIN (FORMAT binary)`),
    )
    stream.end(data)
    await finished(stream)
  }
}

const uniqueViolation = '23505'

/** What a server says of rows that it will never take, by SQLSTATE: data, constraints, limits, triggers. */
function isAboutRows(error: unknown): error is pg.DatabaseError & { code: string } {
  if (!(error instanceof pg.DatabaseError)) return false
  const { code = '', constraint } = error
  // Without a constraint's name it is about a missing partition, which is the table's fault.
  if (code === '23514') return constraint !== undefined
  return /^(22|23|54)/.test(code) || code === 'P0001'
}

function failureOf(error: unknown): SinkFailure {
  if (error instanceof SinkFailure) return error
  const { message, code = '' } = error as Error & { code?: string }
  const detail = message || code
  if (!(error instanceof pg.DatabaseError))
    return new SinkFailure('SINK_UNREACHABLE', detail, { cause: error })
  // Ended by an operator, starting up, shutting down.
  if (/^(08|57P)/.test(code)) return new SinkFailure('SINK_UNREACHABLE', detail, { cause: error })
  if (/^(40|53|55|57)/.test(code)) return new SinkFailure('SINK_BUSY', detail, { cause: error })
  return new SinkFailure('SINK_REFUSED', detail, { cause: error })
}
