/**
 * What happens in a history, as a running hash: the same seed must give the same. The lines themselves are
 * kept only where somebody wants to read them.
 */
export class Trace {
  readonly lines: string[] | undefined
  readonly #nowMs: () => number
  #high = 0x811c9dc5
  #low = 0x9e3779b9

  constructor(nowMs: () => number, { keep = false } = {}) {
    this.#nowMs = nowMs
    this.lines = keep ? [] : undefined
  }

  /** @param detail whatever tells this event from others; numbers are hashed whole */
  say(what: string, detail: string | number = ''): void {
    const nowMs = this.#nowMs()
    this.#mix(nowMs * 1024)
    for (let i = 0; i < what.length; i++) this.#mix(what.charCodeAt(i))
    if (typeof detail === 'number') this.#mix(detail)
    else for (let i = 0; i < detail.length; i++) this.#mix(detail.charCodeAt(i))
    this.lines?.push(`${(nowMs / 1000).toFixed(6).padStart(14)}  ${what} ${detail}`)
  }

  get hash(): string {
    return (
      this.#high.toString(16).padStart(8, '0') + (this.#low >>> 0).toString(16).padStart(8, '0')
    )
  }

  #mix(word: number): void {
    this.#high = Math.imul(this.#high ^ word, 0x01000193) >>> 0
    this.#low = Math.imul(this.#low + word, 0x85ebca6b)
    this.#low ^= this.#low >>> 13
  }
}
