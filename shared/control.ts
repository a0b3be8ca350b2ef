import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { UserError } from './failure.ts'
import { hashText } from './reading.ts'

/** Linux keeps 107 bytes for a socket's path. */
const maxSocketPathBytes = 107
/** Where a running agent listens for `agent status`, `tap` and `flush`: HTTP on a Unix socket. */
export function socketPath(data: string): string {
  const path = join(data, 'agent.sock')
  return Buffer.byteLength(path) <= maxSocketPathBytes
    ? path
    : join(tmpdir(), `headgate-${hashText(data).toString(16)}.sock`)
}

/**
 * Asks the agent that runs on a data folder.
 *
 * @throws UserError when none runs there
 */
export function ask(
  data: string,
  method: 'GET' | 'POST',
  path: string,
  onData?: (text: string) => void,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const outgoing = request({ socketPath: socketPath(data), method, path }, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => {
        if (onData) onData(chunk)
        else text += chunk
      })
      response.on('error', reject)
      response.on('end', () => {
        if (response.statusCode === 200) resolve(text)
        else reject(new UserError(`${data}: ${text}`))
      })
    })
    outgoing.on('error', (cause: NodeJS.ErrnoException) => {
      const none = cause.code === 'ENOENT' || cause.code === 'ECONNREFUSED'
      reject(
        new UserError(
          none
            ? `no agent runs on ${data}: start it, or check the data folder`
            : `${data}: cannot ask the agent: ${cause.message}`,
          { cause },
        ),
      )
    })
    outgoing.end()
  })
}
