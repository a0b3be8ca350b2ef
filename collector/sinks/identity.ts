import type { LogRecord } from '../fanout/record.ts'

/**
 * What is the same whenever a record is written, and of no other: `stream/agent/incarnation/lane/sequence`
 * or, for a ledger, which is not numbered, its place in the log.
 *
 * @param origin of the log
 */
export function identityText(record: LogRecord, origin: string): string {
  const { stream, agent, incarnation, lane, sequence, partition, offset } = record
  const who = `${stream}/${encodeURIComponent(agent)}`
  return sequence === undefined
    ? `${who}/${encodeURIComponent(origin)}/${partition}/${offset}`
    : `${who}/${incarnation}/${lane}/${sequence}`
}
