import { z } from 'zod'
import { duration, filePath, size } from '../../shared/config.ts'
import type { Stream } from '../../shared/reading.ts'
import { hasPoints, nameTemplate, templateProblem } from './name-template.ts'
import { sinkKind } from './sink.ts'

const schema = z
  .strictObject({
    url: z.url({ protocol: /^mqtts?$/, error: 'expected an address such as mqtts://broker:8883' }),
    /** `headgate-<name of the sink>` where it is left out. A broker serves only one client of a name. */
    clientId: z.string().min(1).max(128).optional(),
    username: z.string().min(1).max(1_024).optional(),
    /** File with the password; read anew at each connect. */
    passwordFile: filePath().optional(),
    /** PEM files: who signs the broker's certificate, and our own certificate with its key. */
    ca: filePath().optional(),
    cert: filePath().optional(),
    key: filePath().optional(),
    /** `headgate/{stream}/{device}/{metric}`, less what the stream's records have not, where left out. */
    topic: nameTemplate(topicProblem).optional(),
    /** The broker keeps each topic's last message, for who subscribes later. */
    retain: z.boolean().default(false),
    /** A longer message goes to the dead letter: a broker would break the connection, over and over. */
    maxMessage: size({ min: '1KiB', max: '256MiB' }).prefault('256KiB'),
    /** Messages on their way at a time; with MQTT 5 the broker may want fewer. */
    maxInFlight: z.int().min(1).max(10_000).default(256),
    /** For the answer to a message, and to connect. */
    timeout: duration({ min: '100ms', max: '5m' }).prefault('20s'),
  })
  .superRefine(({ cert, key, username, passwordFile }, context) => {
    const complain = (path: string, message: string) =>
      context.addIssue({ code: 'custom', path: [path], message })
    if ((cert === undefined) !== (key === undefined)) complain('cert', 'cert and key go together')
    if (passwordFile !== undefined && username === undefined)
      complain('username', 'missing: a password goes with a user name')
  })
export type MqttConfig = z.output<typeof schema>

/** An MQTT message of QoS 1 for each record. */
export const mqtt = sinkKind({
  schema,
  problem: ({ topic }, stream) => templateProblem(topicOf(topic, stream), stream),
  slice: () => ({ records: 1_000, waitMs: 20 }),
  async open(config, context) {
    const { MqttSink } = await import('./mqtt/mqtt.ts')
    return MqttSink.open(config, context)
  },
})

export function topicOf(configured: string | undefined, stream: Stream): string {
  return configured ?? `headgate/{stream}${hasPoints(stream) ? '/{device}/{metric}' : ''}`
}

function topicProblem(literal: string): string | undefined {
  if (literal.startsWith('$')) return 'topics that begin with $ are the broker’s own'
  return literal === '' || /[+#\0]/.test(literal) ? 'expected a topic, without + and #' : undefined
}
