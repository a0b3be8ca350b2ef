import { Readable } from 'node:stream'
import type { S3Client, S3ClientConfig } from '@aws-sdk/client-s3'
import { piecesOf, type TierObject, type TierStore } from './store.ts'

export interface S3Options {
  bucket: string
  /** Before every path; may be empty. */
  prefix: string
  /** Of a server that is not AWS; its buckets are part of the path. */
  endpoint?: string | undefined
  region: string
  /** Default: where AWS's own tools look. */
  credentials?: { accessKeyId: string; secretAccessKey: string } | undefined
}

/**
 * Objects in a bucket of S3, or of anything that speaks it. AWS's own tools look for credentials in
 * AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, in profiles, and ask the machine for its role.
 */
export class S3Store implements TierStore {
  readonly #client: S3Client
  readonly #s3: typeof import('@aws-sdk/client-s3')
  readonly #options: S3Options

  static async open(options: S3Options): Promise<S3Store> {
    // Large, and wanted only where a tier is configured.
    const s3 = await import('@aws-sdk/client-s3')
    const { endpoint, region, credentials } = options
    const config: S3ClientConfig = {
      region,
      ...(credentials && { credentials }),
      ...(endpoint && { endpoint, forcePathStyle: true }),
      // Other servers know only part of the newer checksums; the payload's SHA-256 is signed below.
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
    }
    return new S3Store(new s3.S3Client(config), s3, options)
  }

  private constructor(
    client: S3Client,
    s3: typeof import('@aws-sdk/client-s3'),
    options: S3Options,
  ) {
    this.#client = client
    this.#s3 = s3
    this.#options = options
  }

  async put(path: string, object: TierObject): Promise<void> {
    const command = new this.#s3.PutObjectCommand({
      ...this.#place(path),
      Body: Readable.from(piecesOf(object), { objectMode: false }),
      ContentLength: object.length,
      ContentType: path.endsWith('.json') ? 'application/json' : 'application/octet-stream',
    })
    const sha256 = Buffer.from(object.sha256).toString('hex')
    // The signature is over it, so the server takes these bytes and no others.
    command.middlewareStack.add(
      (next) => (args) => {
        const { headers } = args.request as { headers: Record<string, string> }
        headers['x-amz-content-sha256'] = sha256
        return next(args)
      },
      { step: 'build', name: 'knownHash' },
    )
    await this.#client.send(command)
  }

  get(path: string): Promise<Uint8Array | undefined> {
    return this.#get(path, undefined)
  }

  range(path: string, offset: number, length: number): Promise<Uint8Array | undefined> {
    return this.#get(path, `bytes=${offset}-${offset + length - 1}`)
  }

  async #get(path: string, range: string | undefined): Promise<Uint8Array | undefined> {
    const command = new this.#s3.GetObjectCommand({
      ...this.#place(path),
      ...(range && { Range: range }),
    })
    try {
      const { Body } = await this.#client.send(command)
      return await Body!.transformToByteArray()
    } catch (error) {
      if ((error as Error).name === 'NoSuchKey') return undefined
      throw error
    }
  }

  async remove(path: string): Promise<void> {
    await this.#client.send(new this.#s3.DeleteObjectCommand(this.#place(path)))
  }

  #place(path: string): { Bucket: string; Key: string } {
    const { bucket, prefix } = this.#options
    return { Bucket: bucket, Key: prefix === '' ? path : `${prefix}/${path}` }
  }
}
