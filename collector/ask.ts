import { readFile } from 'node:fs/promises'
import type { HttpLinkOptions } from '../shared/client/http.ts'
import { ClientFailure, LogClient } from '../shared/client.ts'
import { UserError } from '../shared/failure.ts'

/** Which collector a command asks, and who asks. */
export interface AskOptions {
  collector?: string
  fleet?: string
  tokenFile?: string
}

/** A client of that collector. @throws UserError */
export async function clientOf(options: AskOptions): Promise<LogClient> {
  const url = options.collector!.replace(/\/+$/, '')
  if (!/^https?:\/\//.test(url) || !URL.canParse(url))
    throw new UserError(
      `--collector takes an address such as http://127.0.0.1:7070, not "${url}"`,
      { exitCode: 2 },
    )
  const onRetry = (why: string, delayMs: number) => {
    process.stderr.write(`headgate: ${why}; trying again in ${(delayMs / 1000).toFixed(1)} s\n`)
  }
  return new LogClient({ url, onRetry, ...(await credentials(options)) })
}

/** What a collector will not do is one line for the person who asked. @throws UserError */
export async function asking<T>(url: string | undefined, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (!(error instanceof ClientFailure)) throw error
    throw new UserError(`${url}: ${error.answer.message ?? error.detail}`, { cause: error })
  }
}

/** What a collector that is not open asks for. */
async function credentials({
  fleet,
  tokenFile,
}: AskOptions): Promise<Pick<HttpLinkOptions, 'token' | 'tls'>> {
  if (tokenFile !== undefined) {
    const token = await readFile(tokenFile, 'utf8').catch((cause) => {
      throw new UserError(`--token-file: ${tokenFile} cannot be read (${cause.code})`, { cause })
    })
    return { token: token.trim() }
  }
  if (fleet === undefined) return {}
  const { readPersonFiles } = await import('./fleet/files.ts')
  const { ca, cert, key } = await readPersonFiles(fleet)
  return { tls: { ca, cert, key } }
}
