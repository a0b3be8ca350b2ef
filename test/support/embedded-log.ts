import { EmbeddedLog, type EmbeddedOptions } from '../../collector/log/embedded/embedded.ts'
import type { Disk } from '../../shared/ports.ts'
import { systemRandom } from '../../shared/system.ts'
import { ManualClock } from './manual-clock.ts'
import { silentLog } from './silent-log.ts'

/** An embedded log on `disk`; whatever does not matter has a default. */
export function openLog(disk: Disk, options: Partial<EmbeddedOptions> = {}): Promise<EmbeddedLog> {
  return EmbeddedLog.open({
    disk,
    clock: new ManualClock(),
    random: systemRandom,
    logger: silentLog,
    segmentBytes: 2 ** 20,
    groupBytes: 2 ** 20,
    headroomBytes: 256,
    retention: { bytes: undefined, ageMs: undefined },
    ...options,
  })
}
