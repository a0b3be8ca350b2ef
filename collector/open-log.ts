import { mkdir, readFile } from 'node:fs/promises'
import { UserError } from '../shared/failure.ts'
import type { Logger } from '../shared/log.ts'
import { systemClock, systemRandom } from '../shared/system.ts'
import { type CollectorConfig, segmentBytes } from './config.ts'
import type { VerifyReport } from './log/audit.ts'
import { nodeDisk } from './log/embedded/disk.ts'
import { EmbeddedLog, type EmbeddedOptions } from './log/embedded/embedded.ts'
import { verifyLog } from './log/embedded/verify.ts'
import { type LogEngine, LogFailure } from './log/engine.ts'
import { openPlace } from './log/tier/place.ts'

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
      const credentials = await readCredentials(nats!.credentials)
      const log = await NatsLog.open({ ...world, ...nats!, credentials, partitions, retention })
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

async function readCredentials(file: string | undefined): Promise<Uint8Array | undefined> {
  if (file === undefined) return undefined
  try {
    return await readFile(file)
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    throw new UserError(`${file}: cannot read the credentials (${code})`, { cause })
  }
}

function explained({ data, log }: CollectorConfig, cause: unknown): unknown {
  const where = log.engine === 'nats' ? log.nats!.servers.join(', ') : data
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
