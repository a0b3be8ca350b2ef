import { z } from 'zod'
import { type TierStore, wholeObject } from '../../log/tier/store.ts'
import { SinkFailure } from '../sink.ts'

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

/** @throws SinkFailure when there is one that cannot be understood: to begin anew would double everything */
export async function readManifest(store: TierStore, path: string): Promise<Manifest> {
  const bytes = await store.get(path)
  if (!bytes) return noManifest
  try {
    return manifestSchema.parse(JSON.parse(Buffer.from(bytes).toString('utf8')))
  } catch (cause) {
    const what = `${path} cannot be understood: put it back, or remove it and the files to begin anew`
    throw new SinkFailure('SINK_REFUSED', what, { cause })
  }
}

/** Resolves once it is durable, in the place of the one before. */
export async function writeManifest(
  store: TierStore,
  path: string,
  manifest: Manifest,
): Promise<void> {
  await store.put(path, wholeObject(Buffer.from(`${JSON.stringify(manifest)}\n`)))
}
