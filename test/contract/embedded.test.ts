import { nodeDisk } from '../../collector/log/embedded/disk.ts'
import { EmbeddedLog } from '../../collector/log/embedded/embedded.ts'
import { systemClock, systemRandom } from '../../shared/system.ts'
import { silentLog } from '../support/silent-log.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { logEngineContract } from './log-engine.ts'

const sizes = { '1 MiB': 2 ** 20, 'a few batches': 2000 }

for (const [size, segmentBytes] of Object.entries(sizes))
  logEngineContract(`embedded, segments of ${size}`, async (t) => {
    const directory = await temporaryDirectory(t)
    return {
      open: () =>
        EmbeddedLog.open({
          disk: nodeDisk(directory),
          clock: systemClock,
          random: systemRandom,
          logger: silentLog,
          segmentBytes,
          groupBytes: 2 ** 20,
          retention: { bytes: undefined, ageMs: undefined },
        }),
    }
  })
