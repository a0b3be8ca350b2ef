import { readEntry } from '../../../collector/ingest/entry.ts'
import type { Cluster } from '../../../collector/log/kafka/cluster.ts'
import { KafkaLog, type KafkaOptions } from '../../../collector/log/kafka/kafka.ts'
import { PlatformaticCluster } from '../../../collector/log/kafka/platformatic.ts'
import { openPeers } from '../../../collector/peer-link.ts'
import { systemClock, systemRandom } from '../../../shared/system.ts'
import { silentLog } from '../silent-log.ts'

const limits = { maxBodyBytes: 2 ** 20, maxInflatedBytes: 2 ** 23 }

/** A log as a collector on loopback would open it. */
export async function openKafkaLog(
  brokers: readonly string[],
  options: Partial<KafkaOptions> = {},
  cluster?: Cluster,
): Promise<KafkaLog> {
  const world = { clock: systemClock, random: systemRandom, logger: silentLog }
  return KafkaLog.open(cluster ?? (await PlatformaticCluster.open({ ...world, brokers })), {
    ...world,
    name: 'headgate',
    partitions: 1,
    replicas: Math.min(3, brokers.length),
    records: 'readings',
    retention: { bytes: undefined, ageMs: undefined },
    openPeers: (handlers) =>
      openPeers({ ...world, host: '127.0.0.1', port: 0, maxBodyBytes: 2 ** 20 }, handlers),
    readEntry: (body, encoding, arrivedMs) => readEntry(body, encoding, { ...limits, arrivedMs }),
    ...options,
  })
}
