import { isIP } from 'node:net'
import { z } from 'zod'
import { duration, filePath, loadConfig, size } from '../shared/config.ts'

const mebibyte = 2 ** 20

const httpSchema = z
  .strictObject({
    host: z.string().min(1).default('127.0.0.1'),
    /** 0 takes a free port. */
    port: z.int().min(0).max(65_535).default(7070),
    /** Connections open at the same time. */
    maxConnections: z.int().min(1).max(1_000_000).default(10_000),
    /** Time that a sender has for a whole request. */
    timeout: duration({ min: '100ms', max: '1h' }).prefault('30s'),
  })
  .prefault({})

const ingestSchema = z
  .strictObject({
    /** Largest body as sent, and inflated. */
    maxBody: size({ min: '64KiB', max: '32MiB' }).prefault('1MiB'),
    maxInflated: size({ min: '64KiB', max: '256MiB' }).prefault('8MiB'),
    /** Bodies being received or waiting for the disk, together; more are told to come back. */
    maxInFlight: size({ min: '1MiB', max: '8GiB' }).prefault('64MiB'),
  })
  .prefault({})

const logSchema = z
  .strictObject({
    engine: z.literal('embedded').default('embedded'),
    /** Agents are spread over so many, each with a writer of its own; those there are always stay. */
    partitions: z.int().min(1).max(256).default(1),
    /** The log is kept in files of this size, which retention removes whole. */
    segment: size({ min: '64KiB', max: '4GiB' }).prefault('64MiB'),
    /** The oldest goes when the log is larger or older; without `age`, only by size. */
    retention: z
      .strictObject({
        bytes: size({ min: '1MiB', max: '1024TiB' }).prefault('10GiB'),
        age: duration({ min: '1m', max: '36500d' }).optional(),
      })
      .prefault({}),
  })
  .prefault({})

const collectorSchema = z
  .strictObject({
    /** Folder of the log; relative to the configuration file. */
    data: filePath(),
    http: httpSchema,
    /** `open`: whoever reaches the port may send and read. */
    auth: z.strictObject({ mode: z.literal('open') }),
    ingest: ingestSchema,
    log: logSchema,
  })
  .superRefine(({ auth, http }, context) => {
    if (auth.mode === 'open' && !isLoopback(http.host))
      context.addIssue({
        code: 'custom',
        path: ['auth', 'mode'],
        message: `open is refused on ${http.host}, which others may reach: set http.host to 127.0.0.1`,
      })
  })

export type CollectorConfig = Readonly<z.output<typeof collectorSchema>>

/** @throws ConfigFailure with every problem at once; UserError when the file cannot be read */
export function loadCollectorConfig(
  file: string,
  environment: NodeJS.ProcessEnv = process.env,
): Promise<CollectorConfig> {
  return loadConfig(collectorSchema, file, environment)
}

/** Size at which a segment is sealed: small enough for retention to hold its limit in whole segments. */
export function segmentBytes({ segment, retention, partitions }: CollectorConfig['log']): number {
  const room = Math.floor(retention.bytes / partitions / 8)
  return Math.max(Math.min(segment, room), mebibyte / 16)
}

function isLoopback(host: string): boolean {
  if (host === 'localhost' || host === '::1') return true
  return isIP(host) === 4 && host.startsWith('127.')
}
