import { z } from 'zod'
import { UserError } from '../../shared/failure.ts'
import type { Disk } from '../../shared/ports.ts'
import { type Stream, streams } from '../../shared/reading.ts'
import { readWhole, replaceFile } from '../log/embedded/snapshot.ts'

const file = 'state.json'
const offset = z.int().min(0)

/** A range that was asked for again. */
const againSchema = z.strictObject({
  /** As they were given: an offset of each partition, or a time. */
  from: z.string().optional(),
  to: z.string().optional(),
  /** By partition: what comes next, and where it ends; empty while that is not known. */
  next: z.array(offset),
  end: z.array(offset),
})

const stateSchema = z.strictObject({
  version: z.literal(1),
  stream: z.enum(streams),
  /** By partition: offset behind the last record that the output has for good. */
  positions: z.array(offset),
  paused: z.boolean(),
  again: againSchema.optional(),
})

export type Again = z.output<typeof againSchema>
export type SinkState = z.output<typeof stateSchema>

export function newState(stream: Stream): SinkState {
  return { version: 1, stream, positions: [], paused: false }
}

/**
 * What a sink remembers over a restart, in one small file.
 *
 * @param directory the sink's own
 * @returns undefined for a sink that has none yet
 * @throws UserError when there is one that cannot be understood: to begin anew would repeat everything
 */
export async function readState(disk: Disk, directory: string): Promise<SinkState | undefined> {
  if (!(await disk.list(directory)).includes(file)) return undefined
  const path = `${directory}/${file}`
  try {
    const text = Buffer.from(await readWhole(disk, path)).toString('utf8')
    return stateSchema.parse(JSON.parse(text))
  } catch (cause) {
    throw new UserError(`${path}: not a sink's state: put it back, or remove it to begin anew`, {
      cause,
    })
  }
}

/** Resolves once it survives a power cut; until then the state before is there. */
export function writeState(disk: Disk, directory: string, state: SinkState): Promise<void> {
  return replaceFile(disk, directory, file, (write) =>
    write([Buffer.from(`${JSON.stringify(state)}\n`)]),
  )
}
