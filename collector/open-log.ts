import { mkdir, readFile } from 'node:fs/promises'
import { UserError } from '../shared/failure.ts'
import type { Logger } from '../shared/log.ts'
import { systemClock, systemRandom } from '../shared/system.ts'
import { type CollectorConfig, segmentBytes } from './config.ts'
import { readEntry } from './ingest/entry.ts'
import type { VerifyReport } from './log/audit.ts'
import { nodeDisk } from './log/embedded/disk.ts'
import { EmbeddedLog, type EmbeddedOptions } from './log/embedded/embedded.ts'
import { verifyLog } from './log/embedded/verify.ts'
import { type LogEngine, LogFailure } from './log/engine.ts'
import type { KafkaLog } from './log/kafka/kafka.ts'
import type { ReadingFormat } from './log/kafka/readings.ts'
import { openPlace } from './log/tier/place.ts'
import { checkSync } from './nats-monitoring.ts'
import type { ReadingFormatOptions } from './sinks/registry/reading-format.ts'
import type { FormatConfig } from './sinks/registry.ts'

export interface OpenLog {
  log: LogEngine
  /** Reads all of it. @param breathe called between batches */
  verify(breathe: () => Promise<void>): Promise<VerifyReport>
}

const groupBytes = 8 * 2 ** 20

/** Opens the log that a configuration asks for. @throws UserError when it cannot be had */
export async function openLog(config: CollectorConfig, logger: Logger): Promise<OpenLog> {
  const world = { clock: systemClock, random: systemRandom, logger }
  const { engine, partitions, nats } = config.log
  const { bytes, age: ageMs, ages: agesMs = {} } = config.log.retention
  const retention = { bytes, ageMs, agesMs: defined(agesMs) }
  try {
    if (engine === 'nats') {
      const { NatsLog } = await import('./log/nats/nats.ts')
      const { monitoring, credentials: file, ...options } = nats!
      const credentials = file === undefined ? file : await readSecret(file, 'the credentials')
      await checkSync(monitoring, logger)
      const log = await NatsLog.open({ ...world, ...options, credentials, partitions, retention })
      return { log, verify: (breathe) => log.verify(breathe) }
    }
    if (engine === 'kafka') {
      const log = await openKafka(config, logger)
      return { log, verify: (breathe) => log.verify(breathe) }
    }
    const disk = nodeDisk(config.data)
    const sizes = { segmentBytes: segmentBytes(config.log), groupBytes }
    const tier = await openTier(config)
    const log = await EmbeddedLog.open({ ...world, ...sizes, disk, partitions, retention, tier })
    return { log, verify: (breathe) => verifyLog(disk, breathe) }
  } catch (cause) {
    throw explained(config, cause)
  }
}

async function openKafka(config: CollectorConfig, logger: Logger): Promise<KafkaLog> {
  const [{ KafkaLog, topicsOf }, { PlatformaticCluster }, { openPeers }] = await Promise.all([
    import('./log/kafka/kafka.ts'),
    import('./log/kafka/platformatic.ts'),
    import('./peer-link.ts'),
  ])
  const world = { clock: systemClock, random: systemRandom, logger }
  const { partitions, retention, kafka } = config.log
  const { brokers, ca: caFile, sasl, peer, format, registry, ...options } = kafka!
  const { maxBody: maxBodyBytes, maxInflated: maxInflatedBytes } = config.ingest
  const ca = caFile && (await readSecret(caFile, 'the authority')).toString()
  const password = sasl && (await readSecret(sasl.password, 'the password')).toString().trim()
  const credentials = sasl && { ...sasl, password: password! }
  const topic = topicsOf(options.name).readings
  const readings = registry && (await openFormat({ format, registry }, { ...world, topic }))
  const cluster = await PlatformaticCluster.open({ ...world, brokers, ca, sasl: credentials })
  return KafkaLog.open(cluster, {
    ...world,
    ...options,
    ...(readings && { format: readings }),
    partitions,
    retention: { bytes: retention.bytes, ageMs: retention.age },
    openPeers: (handlers) =>
      openPeers({ ...world, maxBodyBytes, ...peer, host: peer.host ?? config.http.host }, handlers),
    readEntry: (body, encoding, arrivedMs) =>
      readEntry(body, encoding, { maxBodyBytes, maxInflatedBytes, arrivedMs }),
  })
}

async function openFormat(
  config: FormatConfig,
  options: ReadingFormatOptions,
): Promise<ReadingFormat> {
  const { openReadingFormat } = await import('./sinks/registry/reading-format.ts')
  return openReadingFormat(config, options)
}

async function openTier({ log: { tier } }: CollectorConfig): Promise<EmbeddedOptions['tier']> {
  if (!tier) return undefined
  const store = await openPlace(tier, async (folder) => {
    await mkdir(folder, { recursive: true })
    return nodeDisk(folder)
  })
  return { store, ageMs: tier.age }
}

function defined<Key extends string>(
  values: Partial<Record<Key, number | undefined>>,
): Partial<Record<Key, number>> {
  const entries = Object.entries(values).filter(([, value]) => value !== undefined)
  return Object.fromEntries(entries) as Partial<Record<Key, number>>
}

async function readSecret(file: string, what: string): Promise<Buffer> {
  try {
    return await readFile(file)
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    throw new UserError(`${file}: cannot read ${what} (${code})`, { cause })
  }
}

function explained({ data, log }: CollectorConfig, cause: unknown): unknown {
  const servers = { embedded: [data], nats: log.nats?.servers, kafka: log.kafka?.brokers }
  const where = servers[log.engine]!.join(', ')
  if (cause instanceof LogFailure) {
    const advice = cause.code === 'LOG_NEWER' ? ': run that version' : ''
    return new UserError(`${where}: ${cause.message}${advice}`, { cause })
  }
  const { code } = cause as NodeJS.ErrnoException
  const why: Record<string, string> = {
    EACCES: 'no permission to read and write the log: change its owner, or set data',
    ENOSPC: 'the disk is full: free some space, or set data',
    EROFS: 'the disk is read-only: set data',
  }
  const text = why[code ?? '']
  return text ? new UserError(`${where}: ${text}`, { cause }) : cause
}
