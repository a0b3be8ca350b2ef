import { Writable } from 'node:stream'
import { pino } from 'pino'
import { systemClock, systemRandom } from '../shared/system.ts'
import { lockFolder } from './lock.ts'
import { nodeDisk } from './log/embedded/disk.ts'
import { EmbeddedLog } from './log/embedded/embedded.ts'
import { verifyLog } from './log/embedded/verify.ts'

export interface RepairReport {
  /** What was done, one line each. */
  repaired: string[]
  /** What stays damaged: it was acknowledged, and no repair brings it back; readers are told where it was. */
  problems: string[]
}

/**
 * What a collector does with its folder at its start, without the collector: what a crash left behind the
 * last whole frame is cut, files that make no sense are set aside, and indexes are made anew.
 *
 * @throws UserError when a collector holds the folder, or it may not be written
 */
export async function repairLog(folder: string): Promise<RepairReport> {
  using _lock = lockFolder(folder)
  const disk = nodeDisk(folder)
  const repaired: string[] = []
  const log = await EmbeddedLog.open({
    disk,
    clock: systemClock,
    random: systemRandom,
    logger: pino(
      new Writable({ write: (chunk, _, done) => done(void repaired.push(line(chunk))) }),
    ),
    segmentBytes: 64 * 2 ** 20,
    groupBytes: 8 * 2 ** 20,
    retention: { bytes: undefined, ageMs: undefined }, // Nothing is removed.
  })
  await log.close()
  return { repaired, problems: (await verifyLog(disk)).problems }
}

function line(chunk: Buffer): string {
  const { msg, bytes, file } = JSON.parse(chunk.toString())
  return [msg, file ?? (bytes !== undefined && `(${bytes} bytes)`)].filter(Boolean).join(' ')
}
