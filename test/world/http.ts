import type { HttpAnswer, HttpLink, HttpRequest } from '../../shared/ports.ts'
import { failure } from './disk.ts'
import type { Process } from './machine.ts'
import type { Network } from './network.ts'

/** Whoever answers at the collector's address. */
export interface Server {
  process: Process
  answer(headers: Record<string, string>, body: Uint8Array): Promise<HttpAnswer>
}

/** Longest time that a request which was held up still arrives after, ms. */
const heldUpMs = 40_000

/**
 * HTTP between one agent's process and the collector, with everything that may happen to a request on its
 * way. What a request did at the collector and what the agent hears of it are two things.
 */
export function openHttp(options: {
  network: Network
  process: Process
  /** Undefined while nothing listens. */
  server(): Server | undefined
  /** Counts requests under way: +1 and −1. */
  open(change: number): void
}): HttpLink {
  const { network, process, server, open } = options
  const { seeded, coverage, timeline } = network
  const closing = new AbortController()

  /** At the collector: nothing listens, it answers, or it dies over it. */
  function deliver(
    { headers, body }: HttpRequest,
    answered: (answer: HttpAnswer) => void,
    failed: (error: Error) => void,
  ): void {
    const collector = server()
    if (!collector) {
      failed(failure('ECONNREFUSED', 'connect'))
      return
    }
    const forget = collector.process.onEnd((how) => {
      if (how === 'killed') failed(failure('ECONNRESET', 'read'))
    })
    collector.answer(headers, body.slice()).then(
      (answer) => {
        forget()
        answered(answer)
      },
      (error: Error) => {
        forget()
        failed(error)
      },
    )
  }

  function post(request: HttpRequest, signal: AbortSignal): Promise<HttpAnswer> {
    return new Promise((resolve, reject) => {
      let settled = false
      const settle = (finish: () => void) => {
        if (settled || !process.alive) return
        settled = true
        cancelTimeout()
        signal.removeEventListener('abort', aborted)
        closing.signal.removeEventListener('abort', closed)
        open(-1)
        finish()
      }
      const aborted = () => settle(() => reject(signal.reason))
      const closed = () => settle(() => reject(failure('UND_ERR_DESTROYED', 'the link is closed')))
      const fail = (error: Error) => settle(() => reject(error))
      const back = (finish: () => void) => network.cross(() => settle(finish))
      open(1)
      const cancelTimeout = process.after(request.timeoutMs, () =>
        fail(Object.assign(new Error('timeout'), { name: 'TimeoutError' })),
      )
      signal.addEventListener('abort', aborted, { once: true })
      closing.signal.addEventListener('abort', closed, { once: true })

      const answer = (given: HttpAnswer) => {
        if (network.strikes('response lost after commit')) {
          coverage.hit('response lost after commit')
          if (seeded.chance(0.5)) back(() => reject(failure('ECONNRESET', 'read')))
          return
        }
        if (network.strikes('body truncated')) {
          coverage.hit('body truncated')
          const body = given.body.slice(0, seeded.below(given.body.length))
          return back(() => resolve({ ...given, body }))
        }
        back(() => resolve(given))
      }
      const arrive = () => deliver(request, answer, (error) => back(() => reject(error)))

      if (network.strikes('drop')) {
        coverage.hit('drop')
        return back(() => reject(failure('ECONNRESET', 'write')))
      }
      if (network.strikes('half-open')) return coverage.hit('half-open')
      if (network.strikes('hang')) {
        coverage.hit('hang')
        // Taken all the same, and no word of it.
        if (seeded.chance(0.5)) network.cross(() => deliver(request, noMatter, noMatter))
        return
      }
      for (const status of [429, 503] as const)
        if (network.strikes(`${status}`)) {
          coverage.hit(`${status}`)
          return network.cross(() => back(() => resolve(busy(status, seeded.below(4)))))
        }
      if (network.strikes('reorder across connections')) {
        // The connection breaks; what was written into it arrives behind what is sent on the next.
        coverage.hit('reorder across connections')
        timeline.after(heldUpMs * seeded.uniform(), () => deliver(request, noMatter, noMatter))
        return back(() => reject(failure('ECONNRESET', 'write')))
      }
      if (network.strikes('duplicate')) {
        coverage.hit('duplicate')
        network.cross(() => deliver(request, noMatter, noMatter))
      }
      if (network.strikes('body truncated')) {
        // Shorter than it says: HTTP hands nothing of it to anybody.
        coverage.hit('body truncated')
        return back(() => reject(failure('UND_ERR_SOCKET', 'other side closed')))
      }
      network.cross(arrive)
    })
  }

  return {
    post,
    close: async () => closing.abort(),
  }
}

function busy(status: number, retryAfterS: number): HttpAnswer {
  const headers: Record<string, string> =
    retryAfterS > 0 ? { 'retry-after': String(retryAfterS) } : {}
  return { status, headers, body: new Uint8Array(0) }
}

function noMatter(): void {}
