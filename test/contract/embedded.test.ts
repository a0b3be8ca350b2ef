import { nodeDisk } from '../../collector/log/embedded/disk.ts'
import { EmbeddedLog } from '../../collector/log/embedded/embedded.ts'
import { systemClock, systemRandom } from '../../shared/system.ts'
import { silentLog } from '../support/silent-log.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { logEngineContract } from './log-engine.ts'

const kinds: Record<string, { segmentBytes: number; partitions?: number }> = {
  'segments of 1 MiB': { segmentBytes: 2 ** 20 },
  'segments of a few batches': { segmentBytes: 2000 },
  '5 partitions': { segmentBytes: 2 ** 16, partitions: 5 },
}

for (const [name, kind] of Object.entries(kinds))
  logEngineContract(`embedded, ${name}`, async (t) => {
    const directory = await temporaryDirectory(t)
    return {
      shared: false,
      open: ({ retentionBytes } = {}) => {
        const bytes = retentionBytes && retentionBytes * (kind.partitions ?? 1)
        return EmbeddedLog.open({
          disk: nodeDisk(directory),
          clock: systemClock,
          random: systemRandom,
          logger: silentLog,
          groupBytes: 2 ** 20,
          ...kind,
          segmentBytes: Math.min(kind.segmentBytes, (retentionBytes ?? 2 ** 40) / 8),
          retention: { bytes, ageMs: undefined },
        })
      },
    }
  })
