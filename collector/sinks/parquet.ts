import { z } from 'zod'
import { duration, size } from '../../shared/config.ts'
import { placeProblem, placeShape } from '../log/tier/place.ts'
import { sinkKind } from './sink.ts'

const schema = z
  .strictObject({
    ...placeShape,
    /** A file is closed when it has about so much, compressed. It is made in memory. */
    bytes: size({ min: '4KiB', max: '1GiB' }).prefault('64MiB'),
    /** Or when its first record has waited so long: what is not in a file yet is not to be seen there. */
    every: duration({ min: '1s', max: '1d' }).prefault('10m'),
    /** Which day a record is filed under: that of its own time, or of its arrival at the collector. */
    date: z.enum(['time', 'arrived']).default('time'),
  })
  .superRefine((config, context) => {
    const message = placeProblem(config)
    if (message) context.addIssue({ code: 'custom', message })
  })
export type ParquetConfig = z.output<typeof schema>

/** Parquet files in a folder or a bucket, `stream=readings/date=2026-01-31/….parquet`. */
export const parquet = sinkKind({
  schema,
  slice: () => ({ records: 10_000, waitMs: 1_000 }),
  async open(config, context) {
    const { ParquetSink } = await import('./parquet/parquet.ts')
    return ParquetSink.open(config, context)
  },
})
