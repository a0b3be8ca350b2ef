import { createHash } from 'node:crypto'
import { mkdir, open, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'

/** Keeps signed configurations, each once, under the SHA-256 of its bytes. */
export class Documents {
  readonly #folder: string

  static async open(folder: string): Promise<Documents> {
    await mkdir(folder, { recursive: true, mode: 0o700 })
    return new Documents(folder)
  }

  private constructor(folder: string) {
    this.#folder = folder
  }

  /** Resolves to the digest once the bytes survive a power cut. */
  async put(bytes: Uint8Array): Promise<string> {
    const digest = digestOf(bytes)
    const path = this.#path(digest)
    const file = await open(`${path}.new`, 'w', 0o600)
    try {
      await file.writeFile(bytes)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(`${path}.new`, path)
    const folder = await open(this.#folder, 'r')
    try {
      await folder.sync()
    } finally {
      await folder.close()
    }
    return digest
  }

  /** @returns undefined when it is not there, or not whole any more */
  async get(digest: string): Promise<Uint8Array | undefined> {
    const bytes = await readFile(this.#path(digest)).catch(() => undefined)
    const whole = bytes && digestOf(bytes) === digest
    return whole ? new Uint8Array(bytes) : undefined
  }

  #path(digest: string): string {
    return join(this.#folder, `${digest}.cbor`)
  }
}

/** SHA-256, hexadecimal. */
export function digestOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
