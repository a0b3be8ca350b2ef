import { z } from 'zod'
import { duration, filePath, size } from '../../shared/config.ts'
import type { Stream } from '../../shared/reading.ts'
import { columns } from './columns.ts'
import { hasPoints, nameTemplate, templateProblem } from './name-template.ts'
import { sinkKind } from './sink.ts'

const columnNames = z.array(z.enum(columns.map(({ name }) => name))).max(columns.length)

const schema = z.strictObject({
  /** Of the server; `/api/v2/write` is put behind it. */
  url: z.url({ protocol: /^https?$/, error: 'expected an http:// or https:// address' }),
  /** As the server asks for them. */
  org: z.string().min(1).max(1_024).optional(),
  bucket: z.string().min(1).max(1_024).optional(),
  /** File with the token. */
  tokenFile: filePath().optional(),
  /** Word before the token: InfluxDB wants `Token`, others `Bearer`. */
  tokenScheme: z.enum(['Token', 'Bearer']).default('Token'),
  /** PEM file of the authority that vouches for the server. */
  ca: filePath().optional(),
  /** Name of the measurement; `{metric}` for readings and alerts, otherwise `{stream}`. */
  measurement: nameTemplate(() => undefined).optional(),
  /** Columns that become tags, which servers index; `labels` becomes one for each label. */
  tags: columnNames.prefault(['device', 'unit', 'labels', 'agent']),
  /** Columns that become fields. */
  fields: columnNames
    .min(1)
    .prefault(['value', 'value_int', 'value_bool', 'value_text', 'quality', 'content']),
  /** Records in one request at most, and bytes of it before compression. */
  maxRecords: z.int().min(1).max(100_000).default(5_000),
  maxBytes: size({ min: '64KiB', max: '64MiB' }).prefault('4MiB'),
  /** How long a record waits for company. */
  maxAge: duration({ min: '0ms', max: '1m' }).prefault('1s'),
  /** For the whole of an answer. */
  timeout: duration({ min: '100ms', max: '5m' }).prefault('30s'),
  gzip: z.boolean().default(true),
})
export type LineProtocolConfig = z.output<typeof schema>

/** Points for InfluxDB and whatever takes its line protocol over HTTP. */
export const lineProtocol = sinkKind({
  schema,
  problem: ({ measurement }, stream) => templateProblem(measurementOf(measurement, stream), stream),
  slice: ({ maxRecords, maxAge }) => ({ records: maxRecords, waitMs: maxAge }),
  open: async (config, context) =>
    (await import('./line-protocol/line-protocol.ts')).LineProtocol.open(config, context),
})

export function measurementOf(configured: string | undefined, stream: Stream): string {
  return configured ?? (hasPoints(stream) ? '{metric}' : '{stream}')
}
