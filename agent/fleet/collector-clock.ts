import type { Clock, HttpLink } from '../../shared/ports.ts'

/** Sees by the collector's answers how far the gateway's clock is off. */
export class CollectorClock {
  readonly #clock: Clock
  /** Gateway's clock less the collector's, to a second; undefined until there was an answer. */
  offsetMs: number | undefined

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** The link as it is, looked at. */
  watch(link: HttpLink): HttpLink {
    return {
      post: async (request, signal) => {
        const answer = await link.post(request, signal)
        // biome-ignore lint/style/noRestrictedGlobals: reads a given time, no clock
        const theirs = Date.parse(answer.headers.date ?? '')
        if (Number.isFinite(theirs)) this.offsetMs = this.#clock.wallMs() - theirs
        return answer
      },
      close: () => link.close(),
    }
  }
}
