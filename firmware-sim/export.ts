import { open } from 'node:fs/promises'
import { UserError } from '../shared/failure.ts'
import { csvCell, type Samples, timeText } from '../shared/trace.ts'

export interface Exported {
  written: number
  /** Garbage payloads, which a table of values has no place for. */
  leftOut: number
}

/**
 * Writes a recording as CSV, `timestamp,device,metric,value`, over what may be there: a trace that plays
 * the same again.
 *
 * @throws UserError when the file cannot be written
 */
export async function exportRecording(
  samples: Samples,
  file: string,
  signal: AbortSignal,
): Promise<Exported> {
  const result = { written: 0, leftOut: 0 }
  try {
    await using handle = await open(file, 'w')
    await handle.write('timestamp,device,metric,value\n')
    for await (const batch of samples) {
      if (signal.aborted) break
      let text = ''
      for (const sample of batch) {
        if (sample.garbage !== undefined) {
          result.leftOut++
          continue
        }
        const { device, metric, value } = sample
        const cell = value.startsWith('"') ? (JSON.parse(value) as string) : value
        text += `${timeText(sample)},${csvCell(device)},${csvCell(metric)},${csvCell(cell)}\n`
        result.written++
      }
      await handle.write(text)
    }
  } catch (cause) {
    throw unwritable(file, cause)
  }
  return result
}

/** What to tell a user whose file cannot be written; other errors as they are. */
export function unwritable(file: string, cause: unknown): unknown {
  const { code } = cause as NodeJS.ErrnoException
  if (cause instanceof UserError || code === undefined) return cause
  const why =
    code === 'ENOENT'
      ? 'its folder does not exist'
      : code === 'EACCES'
        ? 'no permission to write it'
        : code === 'ENOSPC'
          ? 'the disk is full'
          : `cannot be written (${code})`
  return new UserError(`${file}: ${why}`, { cause })
}
