import { encodePassage } from '../../shared/batch.ts'
import { SeriesTable, type Stream } from '../../shared/reading.ts'
import type { Damage } from '../log/engine.ts'
import {
  type LogReader,
  type Piece,
  type Query,
  readItems,
  readRecords,
  wantedOf,
} from './fanout.ts'
import { type Format, formatRecords, formats, headerLine } from './format.ts'
import type { ParquetStream } from './parquet.ts'

/** What a query's answer is written as. */
export const shapes = [...formats, 'cbor', 'parquet'] as const
export type ShapeName = (typeof shapes)[number]

/** A part of an answer: what is written, and where the reader then is. */
export interface Part {
  chunk: string | Uint8Array
  partition: number
  /** Offset, inclusive. */
  last: number
  damage?: Damage
}

/** One answer in the making. */
export interface Shape {
  readonly contentType: string
  readonly head: string
  /** May be asked again, to go on where it was left. */
  read(log: LogReader, query: Query): AsyncIterable<Part>
  /** What comes behind the last part. */
  end(): string | Uint8Array
}

export function shapeOf(name: ShapeName, stream: Stream): Shape {
  switch (name) {
    case 'cbor':
      return { contentType: 'application/cbor-seq', head: '', read: readBatches, end: () => '' }
    case 'parquet':
      return parquetShape()
    default:
      return textShape(name, stream)
  }
}

function textShape(format: Format, stream: Stream): Shape {
  return {
    contentType: {
      ndjson: 'application/x-ndjson; charset=utf-8',
      csv: 'text/csv; charset=utf-8; header=present',
    }[format],
    head: headerLine(stream, format),
    async *read(log, query) {
      for await (const piece of readRecords(log, query))
        yield { chunk: formatPiece(piece, format), ...placeOf(piece) }
    },
    end: () => '',
  }
}

function parquetShape(): Shape {
  let file: ParquetStream | undefined
  return {
    contentType: 'application/vnd.apache.parquet',
    head: '',
    async *read(log, query) {
      // Not before it is wanted: `headgate log` is quick.
      file ??= new (await import('./parquet.ts')).ParquetStream()
      for await (const piece of readRecords(log, query))
        yield {
          chunk: piece.type === 'records' ? file.add(piece.records) : '',
          ...placeOf(piece),
        }
    },
    end: () => file?.end() ?? '',
  }
}

/** Batches as they came, those that have something that is asked for; their other records come along. */
async function* readBatches(log: LogReader, query: Query): AsyncGenerator<Part> {
  const wants = wantedOf(query)
  const table = new SeriesTable()
  for await (const item of readItems(log, query)) {
    if (item.type === 'damage') {
      const { partition, first, last } = item
      const [chunk] = encodePassage({ type: 'damage', partition, first, last })
      yield { chunk: chunk!, partition, last, damage: item }
      continue
    }
    if (!wants(item, table)) continue
    const { partition, feeds, arrivedMs, encoding, body } = item
    const { first: offset, count } = feeds[query.stream]
    const passage = { partition, offset, count, arrivedMs, encoding, body }
    const chunk = Buffer.concat(encodePassage({ type: 'batch', ...passage }))
    yield { chunk, partition, last: offset + count - 1 }
  }
}

/** Where a piece ends. */
export function placeOf(piece: Piece): Omit<Part, 'chunk'> {
  if (piece.type === 'damage')
    return { partition: piece.partition, last: piece.last, damage: piece }
  const { partition, offset } = piece.records.at(-1)!
  return { partition, last: offset }
}

/** Damage is a line of its own where the format has room for it; in CSV the offsets show it. */
function formatPiece(piece: Piece, format: Format): string {
  if (piece.type === 'records') return formatRecords(piece.records, format)
  const { first, last } = piece
  return format === 'csv' ? '' : `${JSON.stringify({ damaged: { first, last } })}\n`
}
