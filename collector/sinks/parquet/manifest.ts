import { z } from 'zod'
import { type TierStore, wholeObject } from '../../log/tier/store.ts'
import { type Kept, SinkFailure } from '../sink.ts'

const offsets = z.record(z.string().regex(/^\d+$/), z.int().min(0))

const manifestSchema = z.strictObject({
  version: z.literal(1),
  /** Number of the next cut. */
  cut: z.int().min(1),
  /** By partition: offset behind the last record that is in a file. */
  positions: offsets,
  /** The next cut, while its files are being written: where it ends, and what they are called. */
  pending: z.strictObject({ to: offsets, paths: z.array(z.string()) }).optional(),
})
export type Manifest = z.output<typeof manifestSchema>

export const noManifest: Manifest = { version: 1, cut: 1, positions: {} }

/** Where a manifest is. */
export interface ManifestPlace {
  /** @throws SinkFailure when there is one that cannot be understood: to begin anew would double everything */
  read(): Promise<Manifest>
  /** Resolves once it is durable, in the place of the one before. */
  write(manifest: Manifest): Promise<void>
}

/** Beside the files. */
export function manifestIn(store: TierStore, path: string): ManifestPlace {
  return {
    async read() {
      const bytes = await store.get(path)
      const advice = 'put it back, or remove it and the files to begin anew'
      return bytes ? understood(path, Buffer.from(bytes).toString('utf8'), advice) : noManifest
    },
    write: (manifest) => store.put(path, wholeObject(Buffer.from(`${JSON.stringify(manifest)}\n`))),
  }
}

/** With what the sink remembers, where a collector that was taken over from can write nothing any more. */
export function manifestKept(kept: Kept): ManifestPlace {
  return {
    async read() {
      const { value } = kept
      const advice = 'it is of another output, or a newer version: give the sink another name'
      return value === undefined
        ? noManifest
        : understood('what is kept', JSON.stringify(value), advice)
    },
    write: (manifest) => kept.write(manifest),
  }
}

function understood(where: string, text: string, advice: string): Manifest {
  try {
    return manifestSchema.parse(JSON.parse(text))
  } catch (cause) {
    throw new SinkFailure('SINK_REFUSED', `${where} cannot be understood: ${advice}`, { cause })
  }
}
