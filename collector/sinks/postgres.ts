import { z } from 'zod'
import { duration } from '../../shared/config.ts'
import { sinkKind } from './sink.ts'

const schema = z.strictObject({
  /** Without a password it is taken from `password`, PGPASSWORD or ~/.pgpass. */
  url: z.url({
    protocol: /^postgres(ql)?$/,
    error: 'expected an address such as postgresql://user@host:5432/database',
  }),
  password: z.string().min(1).optional(),
  /** Where the tables are; made when absent. */
  schema: z
    .string()
    .regex(/^[a-z_][a-z0-9_]{0,39}$/, 'expected a name of a-z, 0-9 and _')
    .default('headgate'),
  /** Time that a partition of a table covers. */
  partition: z.enum(['day', 'month']).default('month'),
  /** Written in one transaction, at most. */
  rows: z.int().min(1).max(100_000).default(10_000),
  /** How long a transaction waits to be filled. */
  wait: duration({ min: '1ms', max: '1m' }).prefault('200ms'),
})
export type PostgresConfig = z.output<typeof schema>

/** A table for each stream in a PostgreSQL database; the rest is loaded once a sink is opened. */
export const postgres = sinkKind({
  schema,
  slice: ({ rows, wait }) => ({ records: rows, waitMs: wait }),
  async open(config, context) {
    const { PostgresSink } = await import('./postgres/postgres.ts')
    return PostgresSink.open(config, context)
  },
})
