import { z } from 'zod'
import { duration, filePath } from '../../shared/config.ts'
import type { Stream } from '../../shared/reading.ts'
import { hasPoints, nameTemplate, templateProblem } from './name-template.ts'
import { sinkKind } from './sink.ts'

const schema = z.strictObject({
  /** Some servers of the cluster; the others are learned from them. */
  servers: z
    .array(z.string().regex(/^(nats|tls):\/\/[^\s/]+$/, 'expected nats://host:port'))
    .min(1),
  /** File with a user's JWT and seed. */
  credentials: filePath().optional(),
  /** PEM file of the authority that the servers' certificates are from. */
  ca: filePath().optional(),
  /** `headgate.{stream}.{device}.{metric}`, less what the stream's records have not, where left out. */
  subject: nameTemplate(subjectProblem).optional(),
  /** Messages on their way at a time. */
  maxInFlight: z.int().min(1).max(10_000).default(512),
  /** For the answer to a message. */
  timeout: duration({ min: '100ms', max: '5m' }).prefault('10s'),
})
export type NatsConfig = z.output<typeof schema>

/** A JetStream message for each record. */
export const nats = sinkKind({
  schema,
  problem: ({ subject }, stream) => templateProblem(subjectOf(subject, stream), stream),
  slice: () => ({ records: 2_000, waitMs: 20 }),
  async open(config, context) {
    const { NatsSink } = await import('./nats/nats.ts')
    return NatsSink.open(config, context)
  },
})

export function subjectOf(configured: string | undefined, stream: Stream): string {
  return configured ?? `headgate.{stream}${hasPoints(stream) ? '.{device}.{metric}' : ''}`
}

function subjectProblem(literal: string): string | undefined {
  return /^[^\s.*>]+(\.[^\s.*>]+)*$/.test(literal)
    ? undefined
    : 'expected tokens with dots between them, without spaces, * and >'
}
