import { carryForward } from './lane.ts'
import type { Message, NatsLink } from './link.ts'
import { isIncarnationSubject } from './subject.ts'

export interface Retention {
  /** Of one partition, with headers; undefined keeps everything. */
  bytes: number | undefined
  ageMs: number | undefined
}

/** Share of the limit that is removed at once, so that it is not looked at after every batch. */
const slack = 0.05
const maxSteps = 64

/**
 * Removes the oldest messages of a partition. A subject's last message says what is held, for good: where
 * it would go it is said again first, in a message of its own. Several collectors may do this at once.
 */
export async function retain(
  link: NatsLink,
  stream: string,
  { bytes, ageMs }: Retention,
  nowMs: number,
): Promise<void> {
  if (ageMs !== undefined) {
    const first = await link.firstSince(stream, nowMs - ageMs)
    await cutBefore(link, stream, first ?? (await behindAll(link, stream)))
  }
  if (bytes === undefined) return
  let facts = await link.facts(stream)
  if (facts.bytes <= bytes) return
  const goal = bytes * (1 - slack)
  for (let step = 0; step < maxSteps && facts.bytes > goal; step++) {
    // As if all messages were of one size; what is still too much goes in the next step.
    const { firstSequence, lastSequence } = facts
    const share = (facts.bytes - goal) / facts.bytes
    const cut = firstSequence + Math.ceil((lastSequence - firstSequence + 1) * share)
    if (cut > lastSequence) return
    await cutBefore(link, stream, cut)
    facts = await link.facts(stream)
  }
}

/** Where all is too old its newest message is said again, too: a cut needs one to stand before. */
async function behindAll(link: NatsLink, stream: string): Promise<number> {
  const { messages, lastSequence } = await link.facts(stream)
  const newest = messages > 0 ? await link.at(stream, lastSequence) : undefined
  if (!newest) return lastSequence
  await keepSaying(link, stream, newest, lastSequence + 1)
  return lastSequence + 1
}

async function cutBefore(link: NatsLink, stream: string, sequence: number): Promise<void> {
  const { firstSequence } = await link.facts(stream)
  if (sequence <= firstSequence) return
  for (const message of await lastBefore(link, stream, sequence))
    await keepSaying(link, stream, message, sequence)
  await link.purge(stream, sequence)
}

/**
 * Last messages of subjects that stand before `sequence`. The replica that tells may be behind: it is
 * read until it gives one at or behind `sequence`, and then it has told of all before.
 */
async function lastBefore(link: NatsLink, stream: string, sequence: number): Promise<Message[]> {
  const found = new Map<string, Message>()
  for await (const message of link.scan(stream, { lastPerSubject: true, headersOnly: true })) {
    if (message.sequence >= sequence) break
    found.set(message.subject, message)
  }
  return [...found.values()]
}

/** Goes on until the subject's last message stands at or behind `sequence`. */
async function keepSaying(
  link: NatsLink,
  stream: string,
  message: Message,
  sequence: number,
): Promise<void> {
  let last: Message | undefined = message
  while (last && last.sequence < sequence) {
    // The row is the body, which was not asked for.
    if (isIncarnationSubject(last.subject)) last = await link.at(stream, last.sequence)
    if (last && (await carryForward(link, last))) return
    last = await link.last(stream, message.subject)
  }
}
