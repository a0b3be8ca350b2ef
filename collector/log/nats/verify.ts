import { Audit, type VerifyReport } from '../audit.ts'
import type { NatsLink } from './link.ts'
import { hasBatch, readBatch } from './message.ts'

/** Reads every message of these streams up to their end, and checks it against what it says of itself. */
export async function verifyStreams(
  link: NatsLink,
  streams: readonly string[],
  breathe: () => Promise<void>,
): Promise<VerifyReport> {
  const audit = new Audit()
  for (const [partition, stream] of streams.entries()) {
    audit.report.segments += 1
    const { firstSequence, lastSequence } = await link.facts(stream)
    const isWhole = firstSequence <= 1
    if (lastSequence === 0) continue
    for await (const message of link.scan(stream, {})) {
      await breathe()
      if (hasBatch(message)) {
        const place = `partition ${partition}, message ${message.sequence}`
        const { body } = message
        audit.batch(readBatch(message, partition), body, { place, bytes: body.length, isWhole })
      }
      if (message.sequence >= lastSequence) break
    }
  }
  return audit.report
}
