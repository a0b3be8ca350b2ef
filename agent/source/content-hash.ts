/**
 * 64 bits of a message's content, as two halves: signed, since such integers are kept without a box. It tells messages
 * apart, it does not stand against forgery: who can publish under a topic can also send what is hashed.
 */
export class ContentHasher {
  high = 0
  low = 0

  /** Over a topic's UTF-16 code units. */
  topic(topic: string): void {
    this.high = 0x9e3779b9 | 0
    this.low = 0x85ebca6b | 0
    for (let i = 0; i < topic.length; i++) this.#mix(topic.charCodeAt(i))
    this.#finish(topic.length)
  }

  /** Over a payload, behind a topic's two halves. */
  payload(high: number, low: number, payload: Uint8Array): void {
    this.high = high
    this.low = low
    const length = payload.length
    const whole = length & ~3
    let i = 0
    for (; i < whole; i += 4)
      this.#mix(
        payload[i]! | (payload[i + 1]! << 8) | (payload[i + 2]! << 16) | (payload[i + 3]! << 24),
      )
    if (i < length) {
      let word = 0
      for (; i < length; i++) word = (word << 8) | payload[i]!
      this.#mix(word)
    }
    this.#finish(length)
  }

  #mix(word: number): void {
    const mixed = Math.imul(word, 0xcc9e2d51)
    let high = this.high ^ ((mixed << 15) | (mixed >>> 17))
    high = (high << 13) | (high >>> 19)
    this.high = (Math.imul(high, 5) + 0xe6546b64) | 0
    const low = Math.imul(this.low ^ word, 0x1b873593)
    this.low = (((low << 16) | (low >>> 16)) + this.high) | 0
  }

  #finish(length: number): void {
    const high = finish(this.high ^ length)
    const low = finish(this.low ^ Math.imul(high, 0x27d4eb2f))
    this.high = (high + low) | 0
    this.low = low | 0
  }
}

/** Murmur3's finalizer. */
function finish(word: number): number {
  let mixed = Math.imul(word ^ (word >>> 16), 0x85ebca6b)
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35)
  return mixed ^ (mixed >>> 16)
}
