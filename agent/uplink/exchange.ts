import type { IncomingHttpHeaders } from 'node:http'
import type { Dispatcher } from 'undici'
import type { HttpAnswer } from '../../shared/ports.ts'

/** Bytes of an answer's body that are read; a collector's are far smaller. */
const maxAnswerBytes = 64 * 1024

/**
 * One request and its answer. A streaming body, an async iterator and combined signals, as undici's own
 * `request` has them, cost a gateway several times what the exchange itself does.
 *
 * @throws TimeoutError (a DOMException) when it was begun and is not over after `timeoutMs`, and ConnectTimeoutError
 *   when there was no connection until then; the reason of `signal`; what undici says of the connection
 */
export function exchange(
  dispatcher: Dispatcher,
  request: Dispatcher.DispatchOptions,
  { timeoutMs, signal }: { timeoutMs: number; signal: AbortSignal },
): Promise<HttpAnswer> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason)
    let controller: Dispatcher.DispatchController | undefined
    let given: Error | undefined
    let status = 0
    let headers: IncomingHttpHeaders = {}
    const chunks: Buffer[] = []
    let length = 0
    const settle = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', aborted)
    }
    const finish = () => {
      settle()
      const body = Buffer.concat(chunks).subarray(0, maxAnswerBytes)
      resolve({ status, headers: plain(headers), body })
    }
    const giveUp = (reason: Error) => {
      settle()
      given = reason
      controller?.abort(reason)
      reject(reason)
    }
    const aborted = () => giveUp(signal.reason)
    const timer = setTimeout(() => giveUp(timeoutError(controller !== undefined)), timeoutMs)
    signal.addEventListener('abort', aborted)
    dispatcher.dispatch(
      // The time limit is for the whole of it, and is kept here.
      { ...request, headersTimeout: 0, bodyTimeout: 0 },
      {
        onRequestStart(started) {
          controller = started
          // Given up while it waited for a connection.
          if (given) controller.abort(given)
        },
        onResponseStart(_, statusCode, received) {
          status = statusCode
          headers = received
        },
        onResponseData(_, chunk) {
          chunks.push(chunk)
          length += chunk.length
          if (length <= maxAnswerBytes) return
          finish()
          controller?.abort(new Error('the answer is too long'))
        },
        onResponseEnd: finish,
        onResponseError(_, error) {
          settle()
          reject(error)
        },
      },
    )
  })
}

function plain(headers: IncomingHttpHeaders): Record<string, string> {
  const entries = Object.entries(headers).map(([name, value]) => [name, String(value)])
  return Object.fromEntries(entries)
}

/** Only a request that was begun says anything of how much the link can carry. */
function timeoutError(begun: boolean): Error {
  if (begun) return new DOMException('no answer in time', 'TimeoutError')
  const named = { name: 'ConnectTimeoutError', code: 'UND_ERR_CONNECT_TIMEOUT' }
  return Object.assign(new Error('no connection in time'), named)
}
