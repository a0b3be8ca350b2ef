import { z } from 'zod'
import { duration, filePath } from '../../shared/config.ts'
import { sinkKind } from './sink.ts'

const schema = z.strictObject({
  url: z.url({ protocol: /^https?$/, error: 'expected an http:// or https:// address' }),
  /**
   * File with `whsec_…`, a secret of 24 to 64 bytes in base64; read anew at each request. With several, a
   * line each, every one of them signs, so that a secret can be replaced without a pause.
   */
  secretFile: filePath(),
  /** PEM file of the authority that vouches for the receiver. */
  ca: filePath().optional(),
  /** Records in one request at most. */
  maxRecords: z.int().min(1).max(10_000).default(100),
  /** How long a record waits for company. */
  maxAge: duration({ min: '0ms', max: '1m' }).prefault('1s'),
  /** For the whole of an answer. */
  timeout: duration({ min: '100ms', max: '5m' }).prefault('20s'),
})
export type WebhookConfig = z.output<typeof schema>

/** Posts batches to an address, signed as standardwebhooks.com describes. */
export const webhook = sinkKind({
  schema,
  slice: ({ maxRecords, maxAge }) => ({ records: maxRecords, waitMs: maxAge }),
  open: async (config, context) =>
    (await import('./webhook/webhook.ts')).Webhook.open(config, context),
})
