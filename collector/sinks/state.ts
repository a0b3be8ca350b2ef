import { z } from 'zod'
import { type Stream, streams } from '../../shared/reading.ts'

const offset = z.int().min(0)

/** A range that was asked for again. */
const againSchema = z.strictObject({
  /** Tells it from the one that was asked for before. */
  number: z.int().min(1).default(1),
  /** As they were given: an offset of each partition, or a time. */
  from: z.string().optional(),
  to: z.string().optional(),
  /** By partition: what comes next, and where it ends; empty while that is not known. */
  next: z.array(offset),
  end: z.array(offset),
})

/** Which of several collectors runs the sink. */
const seatSchema = z.strictObject({
  /** Grows each time that one takes it. */
  term: z.int().min(0),
  /** Grows each time that its holder is heard of. */
  beat: z.int().min(0),
  /** `at`: for people. Nobody has it where it is left out. */
  holder: z.strictObject({ id: z.string(), at: z.string() }).optional(),
  /** The holder gives it up, unless it is heard of, before that long has gone by. */
  leaseMs: z.int().min(1),
  /** By partition where the output stands, for the others to tell. */
  reached: z.array(offset),
})

const stateSchema = z.strictObject({
  version: z.literal(1),
  stream: z.enum(streams),
  /** By partition: offset behind the last record that the output has for good. */
  positions: z.array(offset),
  paused: z.boolean(),
  again: againSchema.optional(),
  /** What the output itself remembers. */
  kept: z.unknown().optional(),
  seat: seatSchema.optional(),
})

export type Again = z.output<typeof againSchema>
export type SinkState = z.output<typeof stateSchema>
export type SeatState = z.output<typeof seatSchema>

export function newState(stream: Stream, positions: number[] = []): SinkState {
  return { version: 1, stream, positions, paused: false }
}

/** @throws RangeError when it is not a sink's state */
export function parseState(text: string): SinkState {
  try {
    return stateSchema.parse(JSON.parse(text))
  } catch (cause) {
    throw new RangeError('not a sink’s state', { cause })
  }
}
