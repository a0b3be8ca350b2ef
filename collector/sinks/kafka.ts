import { z } from 'zod'
import { duration, size } from '../../shared/config.ts'
import { accessShape } from '../log/kafka/access.ts'
import { nameTemplate, templateProblem } from './name-template.ts'
import { formatProblem, formatShape } from './registry.ts'
import { sinkKind } from './sink.ts'

const schema = z.strictObject({
  /** Some brokers of the cluster; the others are learned from them. */
  brokers: z.array(z.string().regex(/^[^\s/:]+:\d{1,5}$/, 'expected host:port')).min(1),
  /** It must be there. What is no letter, digit, `.`, `-` or `_` in a field becomes `_`. */
  topic: nameTemplate(topicProblem).prefault('headgate.{stream}'),
  ...formatShape,
  ...accessShape,
  compression: z.enum(['none', 'gzip', 'zstd']).default('zstd'),
  /** A longer record goes to the dead letter; a broker takes 1 MB where nobody has said otherwise. */
  maxMessage: size({ min: '1KiB', max: '256MiB' }).prefault('900KiB'),
  /** For the answer to a request. */
  timeout: duration({ min: '100ms', max: '5m' }).prefault('10s'),
})
export type KafkaConfig = z.output<typeof schema>

/** A Kafka record for each record, with the device as its key. */
export const kafka = sinkKind({
  schema,
  problem: (config, stream) =>
    formatProblem(config) ?? subjectProblem(config) ?? templateProblem(config.topic, stream),
  slice: () => ({ records: 2_000, waitMs: 50 }),
  async open(config, context) {
    const { KafkaSink } = await import('./kafka/kafka.ts')
    return KafkaSink.open(config, context)
  },
})

/** Else who names a device would make subjects in the registry. */
function subjectProblem({ format, topic }: KafkaConfig): string | undefined {
  return format !== 'json' && topic.replaceAll('{stream}', '').includes('{')
    ? `format ${format} goes with one topic: leave all fields but {stream} out of ${topic}`
    : undefined
}

function topicProblem(literal: string): string | undefined {
  return /^[A-Za-z0-9._-]{1,249}$/.test(literal)
    ? undefined
    : 'expected letters, digits, ., - and _ between the fields'
}
