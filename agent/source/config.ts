import { z } from 'zod'
import { duration, filePath, size, text } from '../../shared/config.ts'
import { filterProblem } from './topic-filter.ts'

/** The MQTT broker that readings come from. */
export const sourceSchema = z
  .strictObject({
    /** `mqtt://host:port` or, with TLS, `mqtts://host:port`; the port is 1883 or 8883 where it is left out. */
    url: text(urlProblem),
    /** Topic filters to subscribe to; where they are left out, what the decode rules ask for. */
    topics: z.array(text(filterProblem)).min(1).max(1_000).optional(),
    /** MQTT version. 5 lets the broker say why it refuses, and spares retained copies. */
    version: z
      .union([z.literal('3.1.1'), z.literal('5'), z.literal(5).transform(() => '5' as const)], {
        error: 'expected 3.1.1 or 5',
      })
      .default('3.1.1'),
    qos: z.int().superRefine(refuseQos).default(1),
    /** `headgate-<agent>` where it is left out. A broker serves only one client of a name. */
    clientId: z.string().min(1).max(128).optional(),
    username: z.string().min(1).max(1_024).optional(),
    password: z.string().max(4_096).optional(),
    /** File with the password in its first line; read anew at each connect. */
    passwordFile: filePath().optional(),
    tls: z
      .strictObject({
        /** PEM files: who signs the broker's certificate, and our own certificate with its key. */
        ca: filePath().optional(),
        cert: filePath().optional(),
        key: filePath().optional(),
        /** Name that the broker's certificate must bear, where it is not the URL's. */
        servername: z.string().min(1).max(253).optional(),
        /** Takes any certificate: for a test bench only. */
        insecure: z.boolean().default(false),
      })
      .prefault({}),
    /** Longest silence towards the broker; half as long again of its silence ends the connection. */
    keepalive: duration({ min: '1s', max: '18h' }).prefault('60s'),
    /** From dialling to the broker's CONNACK, and for its answer to a subscription. */
    connectTimeout: duration({ min: '1s', max: '5m' }).prefault('20s'),
    /** How long the broker keeps our session while we are away (MQTT 5 only). */
    sessionExpiry: duration({ min: '1m', max: '365d' }).prefault('7d'),
    /** Messages that the broker may have un-acknowledged at a time (MQTT 5 only). */
    receiveMaximum: z.int().min(1).max(65_535).default(20_000),
    /** A longer payload goes into quarantine as its first 64 KiB with size and SHA-256. */
    maxMessageBytes: size({ min: '1KiB', max: '16MiB' }).prefault('256KiB'),
    /** What is received and not yet committed; above it the socket is not read. */
    maxUnackedBytes: size({ min: '64KiB', max: '1GiB' }).prefault('16MiB'),
    maxUnackedMessages: z.int().min(1).max(65_535).default(20_000),
    /** Most messages that are committed together. */
    maxGroupMessages: z.int().min(1).max(65_535).default(10_000),
    /** How long a message waits for company at most, where waiting saves a commit. */
    linger: duration({ min: '0ms', max: '1s' }).prefault('10ms'),
    /** Delay before the k-th try to connect: uniform in 0 … min(max, base · 2^k); see `Backoff`. */
    retry: z
      .strictObject({
        base: duration({ min: '10ms', max: '1h' }).prefault('1s'),
        max: duration({ min: '10ms', max: '1h' }).prefault('60s'),
      })
      .prefault({}),
  })
  .superRefine((config, context) => {
    const complain = (path: string[], message: string) =>
      context.addIssue({ code: 'custom', path, message })
    if (config.password !== undefined && config.passwordFile !== undefined)
      complain(['passwordFile'], 'set password or passwordFile, not both')
    const hasPassword = config.password !== undefined || config.passwordFile !== undefined
    if (hasPassword && config.username === undefined)
      complain(['username'], 'missing: a password goes with a user name')
    if ((config.tls.cert === undefined) !== (config.tls.key === undefined))
      complain(['tls'], 'cert and key go together')
    if (!config.url.startsWith('mqtts:') && Object.values(config.tls).some((value) => value))
      complain(['tls'], 'the url is without TLS: write mqtts://')
    if (config.retry.base > config.retry.max) complain(['retry', 'base'], 'is more than max')
  })
export type SourceConfig = z.output<typeof sourceSchema>
/** With the topics that are to be had, wherever they were written. */
export type SubscribingConfig = Omit<SourceConfig, 'topics'> & { topics: readonly string[] }

/** Where the broker is. */
export function brokerAddress(url: string): { host: string; port: number; tls: boolean } {
  const { hostname, port, protocol } = new URL(url)
  const tls = protocol === 'mqtts:'
  return { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port) || (tls ? 8883 : 1883), tls }
}

function urlProblem(given: string): string | undefined {
  let url: URL
  try {
    url = new URL(given)
  } catch {
    return 'expected a URL such as mqtt://127.0.0.1:1883'
  }
  if (url.protocol !== 'mqtt:' && url.protocol !== 'mqtts:')
    return `expected mqtt:// or mqtts://, not ${url.protocol}// (MQTT over WebSocket is not supported)`
  if (url.username || url.password)
    return 'user and password go into source.username and source.password'
  if (url.hostname === '') return 'names no host'
  if (url.port === '0') return 'port 0 is none to connect to'
  return /^\/?$/.test(url.pathname) && !url.search && !url.hash
    ? undefined
    : 'ends behind the port: topics go into source.topics'
}

function refuseQos(qos: number, context: z.RefinementCtx): void {
  const message =
    qos === 2
      ? 'QoS 2 messages are lost when the agent dies between taking one over and storing it, QoS 1 messages are not: use 1'
      : qos === 0
        ? 'QoS 0 messages are lost while the agent is away: use 1 (what is published with QoS 0 is taken all the same)'
        : 'must be 1'
  if (qos !== 1) context.addIssue({ code: 'custom', message })
}
