import { createServer, type IncomingHttpHeaders } from 'node:http'
import { gunzipSync } from 'node:zlib'
import { cleanUp, type Test } from './clean-up.ts'

export interface Received {
  url: string
  headers: IncomingHttpHeaders
  /** Inflated. */
  body: string
}

/** What it answers; `undefined` breaks the connection once the request is there, `never` says nothing. */
export type Answer =
  | { status: number; headers?: Record<string, string>; body?: string }
  | 'never'
  | undefined

/** An HTTP server on loopback that keeps what it gets, gone when the test ends. */
export class HttpReceiver {
  readonly url: string
  readonly received: Received[] = []
  answer: (request: Received) => Answer = () => ({ status: 204 })

  static async start(t: Test): Promise<HttpReceiver> {
    let receiver: HttpReceiver
    const server = createServer(async (request, response) => {
      const chunks: Buffer[] = []
      for await (const chunk of request) chunks.push(chunk)
      const { url = '', headers } = request
      const bytes = Buffer.concat(chunks)
      const body = headers['content-encoding'] === 'gzip' ? gunzipSync(bytes) : bytes
      const got = { url, headers, body: body.toString('utf8') }
      receiver.received.push(got)
      const answer = receiver.answer(got)
      if (answer === undefined) request.socket.destroy()
      else if (answer !== 'never')
        response.writeHead(answer.status, answer.headers).end(answer.body)
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    cleanUp(t, () => {
      server.closeAllConnections()
      server.close()
    })
    const { port } = server.address() as { port: number }
    receiver = new HttpReceiver(`http://127.0.0.1:${port}`)
    return receiver
  }

  private constructor(url: string) {
    this.url = url
  }
}
