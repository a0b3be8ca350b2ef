import { sleep } from '../../../shared/clock.ts'
import { UserError } from '../../../shared/failure.ts'
import type { Logger } from '../../../shared/log.ts'
import type { Clock } from '../../../shared/ports.ts'
import type { ReadingFormat } from '../../log/kafka/readings.ts'
import { rowOf } from '../columns.ts'
import type { FormatConfig } from '../registry.ts'
import { RegistryFailure } from './client.ts'
import { openRowFormat, type RowFormat, readingColumns } from './row-format.ts'

export interface ReadingFormatOptions {
  topic: string
  clock: Clock
  logger: Logger
  /** Until then a registry that does not answer is asked again; default 20 s. */
  patienceMs?: number
}

const pauseMs = 500

/**
 * Values of a log's readings as a registry knows them, with the columns of every other output. The registry
 * is asked now and not again, so that it may be away while batches come.
 *
 * @throws UserError when it will not have the schema, or is not there
 */
export async function openReadingFormat(
  config: FormatConfig,
  options: ReadingFormatOptions,
): Promise<ReadingFormat> {
  const { contentType, schemaUrl, encode } = await insisting(config, options)
  return {
    headers: { 'content-type': contentType, ce_dataschema: schemaUrl },
    value(reading, { entry: { header, arrivedMs }, incarnation }) {
      const { agent, lane, boot } = header
      const { sequence, timeMs } = reading
      const place = { partition: 0, offset: 0, fromMs: timeMs, toMs: timeMs, arrivedMs }
      const from = { agent, incarnation, lane, sequence, boot }
      return encode(rowOf({ ...place, ...from, stream: 'readings', reading }))
    },
  }
}

async function insisting(
  config: FormatConfig,
  { topic, clock, logger, patienceMs = 20_000 }: ReadingFormatOptions,
): Promise<RowFormat> {
  const endMs = clock.monotonicMs() + patienceMs
  for (;;) {
    try {
      return await openRowFormat(config, { topic, name: 'Reading', chosen: readingColumns })
    } catch (cause) {
      if (!(cause instanceof RegistryFailure)) throw cause
      if (!cause.retry || clock.monotonicMs() > endMs) throw new UserError(cause.message, { cause })
      logger.warn({ err: cause.message }, 'waits for the schema registry')
      await sleep(clock, pauseMs)
    }
  }
}
