import { z } from 'zod'
import { filePath } from '../../../shared/config.ts'
import type { Disk } from '../../../shared/ports.ts'
import { FolderStore } from './folder-store.ts'
import type { TierStore } from './store.ts'

/** Keys that say where objects go: a folder or a bucket, and not both. */
export const placeShape = {
  /** A folder on another disk or a file server; or a bucket. */
  folder: filePath().optional(),
  s3: z
    .strictObject({
      bucket: z.string().min(1),
      prefix: z
        .string()
        .regex(/^[^/].*[^/]$|^[^/]?$/, 'expected no / at either end')
        .default(''),
      /** Of a server that is not AWS. */
      endpoint: z.url({ protocol: /^https?$/ }).optional(),
      region: z.string().min(1).default('us-east-1'),
    })
    .optional(),
}

export interface Place {
  folder?: string | undefined
  s3?: z.output<typeof placeShape.s3> | undefined
}

export function placeProblem({ folder, s3 }: Place): string | undefined {
  return (folder === undefined) === (s3 === undefined) ? 'takes either folder or s3' : undefined
}

/** @param openFolder makes a folder and gives it as a disk */
export async function openPlace(
  { folder, s3 }: Place,
  openFolder: (folder: string) => Promise<Disk>,
): Promise<TierStore> {
  if (!s3) return new FolderStore(await openFolder(folder!))
  const { S3Store } = await import('./s3-store.ts')
  return S3Store.open(s3)
}
