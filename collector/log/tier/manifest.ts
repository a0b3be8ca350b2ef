import { z } from 'zod'
import type { Segment } from '../embedded/folder.ts'
import type { SegmentSummary } from '../embedded/index.ts'
import { LogFailure, perStream } from '../engine.ts'

/** A segment in the tier. */
export interface TierSegment {
  number: number
  path: string
  mark: Uint8Array | undefined
  isSifted: boolean
  summary: SegmentSummary
}

/** What was deleted on purpose: an object that is missing and not among these is damage. */
export interface Removal {
  /** Numbers of segments, inclusive. */
  first: number
  last: number
  at: string
  reason: string
}

export interface Manifest {
  segments: TierSegment[]
  removed: Removal[]
}

const time = z.number().nullable()
const streamSchema = z.object({
  first: z.int(),
  next: z.int(),
  records: z.int(),
  batches: z.int(),
  bytes: z.int(),
  fromMs: time,
  toMs: time,
})
const segmentSchema = z.object({
  number: z.int(),
  path: z.string(),
  bytes: z.int(),
  sha256: z.string(),
  mark: z.string(),
  sifted: z.boolean(),
  batches: z.int(),
  lastArrivedMs: z.number(),
  streams: z.object(perStream(() => streamSchema)),
})
const manifestSchema = z.object({
  format: z.literal(1),
  segments: z.array(segmentSchema),
  removed: z.array(z.object({ first: z.int(), last: z.int(), at: z.string(), reason: z.string() })),
})

/** JSON, for whoever wants to know what is in the bucket. */
export function writeManifest({ segments, removed }: Manifest): Uint8Array {
  const document: z.infer<typeof manifestSchema> = {
    format: 1,
    segments: segments.map(({ number, path, mark, isSifted, summary }) => ({
      number,
      path,
      bytes: summary.end,
      sha256: hex(summary.sha256),
      mark: hex(mark),
      sifted: isSifted,
      batches: summary.frames,
      lastArrivedMs: summary.lastArrivedMs,
      streams: perStream((stream) => {
        const { fromMs, toMs, ...counts } = summary.streams[stream]
        return { ...counts, fromMs: finite(fromMs), toMs: finite(toMs) }
      }),
    })),
    removed,
  }
  return new TextEncoder().encode(`${JSON.stringify(document, null, 1)}\n`)
}

/** @throws LogFailure LOG_REFUSED when it is none, or of a later version */
export function readManifest(bytes: Uint8Array): Manifest {
  let document: z.infer<typeof manifestSchema>
  try {
    document = manifestSchema.parse(JSON.parse(new TextDecoder().decode(bytes)))
  } catch (cause) {
    throw new LogFailure('LOG_REFUSED', "the tier's manifest cannot be read", { cause })
  }
  return {
    removed: document.removed,
    segments: document.segments.map(({ number, path, mark, sifted, bytes, ...rest }) => ({
      number,
      path,
      mark: bytesOf(mark),
      isSifted: sifted,
      summary: {
        end: bytes,
        frames: rest.batches,
        lastArrivedMs: rest.lastArrivedMs,
        sha256: bytesOf(rest.sha256),
        streams: perStream((stream) => {
          const { fromMs, toMs, ...counts } = rest.streams[stream]
          return {
            ...counts,
            fromMs: fromMs ?? Number.POSITIVE_INFINITY,
            toMs: toMs ?? Number.NEGATIVE_INFINITY,
          }
        }),
      },
    })),
  }
}

export function asSegment({ number, mark, isSifted, summary }: TierSegment): Segment {
  return { number, mark, isSifted, summary, blocks: undefined }
}

function finite(value: number): number | null {
  return Number.isFinite(value) ? value : null
}

function hex(bytes: Uint8Array | undefined): string {
  return Buffer.from(bytes ?? []).toString('hex')
}

function bytesOf(text: string): Uint8Array | undefined {
  return text === '' ? undefined : new Uint8Array(Buffer.from(text, 'hex'))
}
