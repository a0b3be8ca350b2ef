import { openLevel } from '../../agent/outbox/level.ts'
import {
  type CommitGroup,
  Outbox,
  type OutboxConfig,
  outboxSchema,
} from '../../agent/outbox/outbox.ts'
import type { Clock, Store } from '../../shared/ports.ts'
import type { AdmittedReading, Lane } from '../../shared/reading.ts'
import { systemRandom } from '../../shared/system.ts'
import { ManualClock } from './manual-clock.ts'

/** An outbox on a real LevelDB in `directory`. */
export async function openOutbox(
  directory: string,
  options: { config?: Partial<OutboxConfig>; clock?: Clock; store?: Store } = {},
): Promise<Outbox> {
  return Outbox.open({
    store: options.store ?? (await openLevel(directory)),
    clock: options.clock ?? new ManualClock(),
    random: systemRandom,
    agent: 'gw-001',
    boot: new Uint8Array(16),
    config: { ...outboxSchema.parse({}), ...options.config },
  })
}

/** A group that admits these readings and nothing else. */
export function groupOf(
  readings: readonly AdmittedReading[],
  options: Partial<CommitGroup> & { lane?: Exclude<Lane, 'quarantine'> } = {},
): CommitGroup {
  const { lane = 'bulk', ...rest } = options
  return {
    admitted: readings.map((reading) => ({ lane, reading })),
    records: [],
    rejects: [],
    state: [],
    ...rest,
    counts: {
      received: readings.length,
      receivedQos0: 0,
      suppressed: 0,
      absorbed: 0,
      deduplicated: 0,
      held: 0,
      ...rest.counts,
    },
  }
}

export const wholeLane = { maxCount: 10_000, maxBytes: 256 * 1024 }
