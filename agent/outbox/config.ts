import { z } from 'zod'
import { duration, size } from '../../shared/config.ts'
import { tailSchema } from './tail.ts'

export const outboxSchema = z.strictObject({
  /** Bytes of entries kept. */
  maxBytes: size({ min: '1MiB', max: '1TiB' }).prefault('1GiB'),
  /**
   * What gives way when they are reached: a lane that says `evict` loses its oldest (`bulk` first, `urgent`
   * last); one that says `thin` first loses resolution, within a bound that it then names; where every lane
   * that has something says `block`, the source waits, and the broker keeps it.
   */
  whenFull: z
    .strictObject({
      urgent: z.enum(['thin', 'evict', 'block']).default('evict'),
      bulk: z.enum(['thin', 'evict', 'block']).default('thin'),
      quarantine: z.enum(['evict', 'block']).default('evict'),
    })
    .prefault({}),
  /** Age by the gateway's wall clock after which undelivered readings are dropped; never when absent. */
  expiry: duration({ min: '1m', max: '3650d' }).optional(),
  /** Disk space kept aside, so that a full disk still lets the outbox open, drain and be cleaned up. */
  reserve: size({ min: '0B', max: '1GiB' }).prefault('16MiB'),
  /** Raw readings kept after delivery, to look back at; none when absent. */
  tail: tailSchema.optional(),
})
export type OutboxConfig = z.infer<typeof outboxSchema>
