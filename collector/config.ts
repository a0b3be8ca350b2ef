import { isIP } from 'node:net'
import { z } from 'zod'
import { duration, filePath, loadConfig, size } from '../shared/config.ts'
import { perStream } from './log/engine.ts'
import { accessShape } from './log/kafka/access.ts'
import { placeProblem, placeShape } from './log/tier/place.ts'
import { sinkProblems, sinksSchema } from './sinks/config.ts'
import { formatProblem, formatShape } from './sinks/registry.ts'

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

const natsSchema = z.strictObject({
  /** Some servers of the cluster; the others are learned from them. */
  servers: z
    .array(z.string().regex(/^(nats|tls):\/\/[^\s/]+$/, 'expected nats://host:port'))
    .min(1),
  /** Streams are `<name>-0`, …: one cluster may keep several logs. */
  name: z
    .string()
    .regex(/^[A-Za-z0-9_-]{1,64}$/, 'expected letters, digits, - and _')
    .default('headgate'),
  /** Servers that have each batch on disk; an answer waits for a majority of them. */
  replicas: z.int().min(1).max(5).default(3),
  /** Where servers tell of themselves over HTTP: asked at a start whether they sync what they acknowledge. */
  monitoring: z.array(z.url({ protocol: /^https?$/ })).default([]),
  /** File with a user's JWT and seed. */
  credentials: filePath().optional(),
  /** PEM file of the authority that the servers' certificates are from. */
  ca: filePath().optional(),
})

const address = z.string().regex(/^(\[[^\s[\]]+\]|[^\s/:[\]]+):\d{1,5}$/, 'expected host:port')

const kafkaSchema = z.strictObject({
  /** Some brokers of the cluster; the others are learned from them. */
  brokers: z.array(address).min(1),
  /** Topics are `<name>.batches`, …, and the group is named so: one cluster may keep several logs. */
  name: z
    .string()
    .regex(/^[A-Za-z0-9_-]{1,64}$/, 'expected letters, digits, - and _')
    .default('headgate'),
  /** Brokers that have each batch; an answer waits for those that are in sync. */
  replicas: z.int().min(1).max(5).default(3),
  /** `readings`: one record for each in a topic of its own, too. `batches`: as received, alone. */
  records: z.enum(['readings', 'batches']).default('readings'),
  /** Of the values in that topic. */
  ...formatShape,
  ...accessShape,
  /** Where the other collectors reach this one, to pass on what it owns. */
  peer: z
    .strictObject({
      /** As `http.host` where it is left out. */
      host: z.string().min(1).optional(),
      /** 0 takes a free port. */
      port: z.int().min(0).max(65_535).default(0),
      announce: address.optional(),
    })
    .prefault({}),
})

const tierSchema = z.strictObject({
  ...placeShape,
  /** Deleted there when it arrived longer ago than this. */
  age: duration({ min: '1m', max: '36500d' }).optional(),
})

const logSchema = z
  .strictObject({
    engine: z.enum(['embedded', 'nats', 'kafka']).default('embedded'),
    /** Goes with engine nats. */
    nats: natsSchema.optional(),
    /** Goes with engine kafka. */
    kafka: kafkaSchema.optional(),
    /**
     * Agents are spread over so many, each with a writer of its own. The embedded log may be given more
     * at any start, and keeps those that it has; with nats and kafka the number is for good.
     */
    partitions: z.int().min(1).max(256).default(1),
    /** With nats and kafka: a collector that is silent for so long is taken over from; its sinks go on elsewhere. */
    takeover: duration({ min: '1s', max: '10m' }).prefault('10s'),
    /** Goes with engine embedded: files are copied there before retention removes them. */
    tier: tierSchema.optional(),
    /** The log is kept in files of this size, which retention removes whole. */
    segment: size({ min: '64KiB', max: '4GiB' }).prefault('64MiB'),
    /** The oldest goes when the log is larger or older; without `age`, only by size. */
    retention: z
      .strictObject({
        bytes: size({ min: '1MiB', max: '1024TiB' }).prefault('10GiB'),
        age: duration({ min: '1m', max: '36500d' }).optional(),
        /** In place of `age` for a stream; the embedded log alone can. An agent's newest ledger stays. */
        ages: z
          .strictObject(perStream(() => duration({ min: '1m', max: '36500d' }).optional()))
          .optional(),
      })
      .prefault({}),
  })
  .prefault({})

/** Who may come in, where it does not go without saying. */
const authSchema = z
  .strictObject({
    /**
     * `mtls`: certificates of the fleet. `token`: bearer tokens, behind a proxy that ends TLS. `open`:
     * whoever reaches the port may send and read.
     */
    mode: z.enum(['mtls', 'token', 'open']),
    /** With `token`: a file with lines `<name> <SHA-256 of its token>`; see `headgate collector token`. */
    tokens: filePath().optional(),
  })
  .optional()

const fleetSchema = z
  .strictObject({
    /** What `headgate fleet init` has made. */
    folder: filePath(),
    /** Life of an agent's certificate; it is renewed in time by itself. */
    certificates: duration({ min: '1m', max: '3650d' }).prefault('90d'),
    broker: z
      .strictObject({
        /** A stock broker, `mqtts://host:port`; without it the collector is the broker. */
        url: z
          .url({ protocol: /^mqtts$/, error: 'expected an address such as mqtts://broker:8883' })
          .optional(),
        /** The built-in one: as `http.host` where it is left out. */
        host: z.string().min(1).optional(),
        /** 0 takes a free port. */
        port: z.int().min(0).max(65_535).default(8883),
        maxConnections: z.int().min(1).max(1_000_000).default(10_000),
        /** Address that agents are told at enrolment, `mqtts://…` or `wss://…`; otherwise the fleet's host. */
        announce: z
          .url({ protocol: /^(mqtts|wss)$/, error: 'expected an mqtts:// or wss:// address' })
          .optional(),
      })
      .prefault({}),
  })
  .optional()

const collectorSchema = z
  .strictObject({
    /** Folder of the log; relative to the configuration file. */
    data: filePath(),
    http: httpSchema,
    auth: authSchema,
    fleet: fleetSchema,
    ingest: ingestSchema,
    log: logSchema,
    /** Where the log is written to. */
    sinks: sinksSchema,
  })
  .superRefine((config, context) => {
    const { fleet, http } = config
    const complain = (path: string[], message: string) =>
      context.addIssue({ code: 'custom', path, message })
    const { engine, nats, kafka, tier } = config.log
    for (const { path, message } of sinkProblems(config.sinks))
      context.addIssue({ code: 'custom', path: ['sinks', ...path], message })
    const place = tier && placeProblem(tier)
    if (place) complain(['log', 'tier'], place)
    if (tier && engine !== 'embedded')
      complain(['log', 'tier'], `goes with engine embedded, not with ${engine}`)
    if (tier && config.log.retention.ages)
      complain(['log', 'retention', 'ages'], 'does not go with a tier, where files go whole')
    if (engine === 'nats' && !nats)
      complain(['log', 'nats'], 'missing: engine nats needs { servers: [nats://…] }')
    if (engine !== 'embedded' && config.log.retention.ages)
      complain(['log', 'retention', 'ages'], `goes with engine embedded, not with ${engine}`)
    if (engine !== 'nats' && nats)
      complain(['log', 'nats'], `goes with engine nats, not with ${engine}`)
    if (engine === 'kafka' && !kafka)
      complain(['log', 'kafka'], 'missing: engine kafka needs { brokers: [host:port] }')
    if (engine !== 'kafka' && kafka)
      complain(['log', 'kafka'], `goes with engine kafka, not with ${engine}`)
    const format = kafka && formatProblem(kafka)
    if (format) complain(['log', 'kafka', 'format'], format)
    if (kafka?.records === 'batches' && kafka.format !== 'json')
      complain(['log', 'kafka', 'format'], 'goes with records: readings')
    const peerHost = kafka?.peer.host ?? http.host
    if (kafka && isEverywhere(peerHost) && !kafka.peer.announce)
      complain(
        ['log', 'kafka', 'peer', 'announce'],
        `missing: on ${peerHost} the other collectors cannot know where they reach this one`,
      )
    const mode = authMode(config)
    if (!mode)
      return complain(
        ['auth'],
        'missing: expected a mapping such as { mode: mtls } or { mode: open }',
      )
    if (mode === 'open' && !isLoopback(http.host))
      complain(
        ['auth', 'mode'],
        `open is refused on ${http.host}, which others may reach: set http.host to 127.0.0.1, or auth.mode to mtls`,
      )
    if (mode === 'mtls' && !fleet)
      complain(
        ['fleet'],
        'missing: mtls needs a fleet: { folder: … }, made by `headgate fleet init`',
      )
    if (mode !== 'mtls' && fleet) complain(['fleet'], `a fleet needs auth.mode mtls, not ${mode}`)
    if (mode === 'token' && !config.auth?.tokens)
      complain(['auth', 'tokens'], 'missing: expected the file of tokens')
    if (mode !== 'token' && config.auth?.tokens)
      complain(['auth', 'tokens'], `goes with mode token, not with ${mode}`)
  })

/** On an address that others may reach, and with a fleet, certificates are the rule. */
function authMode({
  auth,
  fleet,
  http,
}: Pick<z.output<typeof collectorSchema>, 'auth' | 'fleet' | 'http'>) {
  return auth?.mode ?? (fleet || !isLoopback(http.host) ? 'mtls' : undefined)
}

type Parsed = z.output<typeof collectorSchema>
export type FleetConfig = NonNullable<Parsed['fleet']>
export type CollectorConfig = Readonly<
  Omit<Parsed, 'auth'> & {
    auth: { mode: 'open' } | { mode: 'mtls' } | { mode: 'token'; tokens: string }
  }
>

/** @throws ConfigFailure with every problem at once; UserError when the file cannot be read */
export async function loadCollectorConfig(
  file: string,
  environment: NodeJS.ProcessEnv = process.env,
): Promise<CollectorConfig> {
  const config = await loadConfig(collectorSchema, file, environment)
  const mode = authMode(config)!
  const auth = mode === 'token' ? { mode, tokens: config.auth!.tokens! } : { mode }
  return Object.freeze({ ...config, auth: Object.freeze(auth) })
}

/** Size at which a segment is sealed: small enough for retention to hold its limit in whole segments. */
export function segmentBytes({ segment, retention, partitions }: CollectorConfig['log']): number {
  const room = Math.floor(retention.bytes / partitions / 8)
  return Math.max(Math.min(segment, room), mebibyte / 16)
}

function isEverywhere(host: string): boolean {
  return host === '0.0.0.0' || host === '::'
}

function isLoopback(host: string): boolean {
  if (host === 'localhost' || host === '::1') return true
  return isIP(host) === 4 && host.startsWith('127.')
}
