import type { Reading } from './reading.ts'

/**
 * Running hash over everything a lane has numbered, one step a sequence, so that it is the same however
 * the lane is cut into batches. Two histories under one incarnation differ in it (a fork). It guards
 * against accidents, not against forgery: who may speak for an agent is the transport's to say.
 */
export interface Chain {
  /** Two unsigned 32-bit halves. */
  readonly high: number
  readonly low: number
}

/** The hash before sequence 1. */
export const chainStart: Chain = Object.freeze({ high: 0, low: 0 })

export function sameChain(a: Chain, b: Chain): boolean {
  return a.high === b.high && a.low === b.low
}

/** 8 bytes, big-endian. */
export function chainToBytes(chain: Chain): Uint8Array {
  const bytes = new Uint8Array(8)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, chain.high)
  view.setUint32(4, chain.low)
  return bytes
}

/** @throws RangeError unless there are 8 bytes */
export function chainFromBytes(bytes: Uint8Array): Chain {
  if (bytes.length !== 8) throw new RangeError(`a chain has 8 bytes, not ${bytes.length}`)
  const view = new DataView(bytes.buffer, bytes.byteOffset, 8)
  return { high: view.getUint32(0), low: view.getUint32(4) }
}

const scratch = new DataView(new ArrayBuffer(8))

/** Carries a chain over readings and records without making an object a step. */
export class ChainHasher {
  /** Signed here, since such integers are kept without a box. */
  #high: number
  #low: number

  constructor(from: Chain) {
    this.#high = from.high | 0
    this.#low = from.low | 0
  }

  /** Over series, time, value and quality; arrival is left out, since batching may coarsen it. */
  reading(reading: Reading): void {
    const { value } = reading
    this.#mix(reading.series.hash)
    scratch.setFloat64(0, reading.timeMs)
    this.#mix(scratch.getUint32(0))
    this.#mix(scratch.getUint32(4) ^ Math.imul(reading.timeNanos, 0x9e3779b1))
    if (typeof value === 'number') {
      // Integers and floats that compare equal are one value, -0 and 0 are two.
      scratch.setFloat64(0, value)
      this.#mix(scratch.getUint32(0))
      this.#mix(scratch.getUint32(4) ^ reading.quality)
    } else if (typeof value === 'bigint') {
      this.#mix(Number(BigInt.asUintN(32, value >> 32n)) ^ 0x5bd1e995)
      this.#mix(Number(BigInt.asUintN(32, value)) ^ reading.quality)
    } else if (typeof value === 'string') {
      // What is no Unicode does not survive being encoded; the hash must be that of what arrives.
      const text = value.toWellFormed()
      this.#mix(0x27d4eb2f ^ text.length)
      for (let i = 0; i < text.length; i++) this.#mix(text.charCodeAt(i))
      this.#mix(reading.quality)
    } else {
      this.#mix(value === null ? 0x165667b1 : value ? 0x85ebca77 : 0xc2b2ae3d)
      this.#mix(reading.quality)
    }
  }

  /** Over a record's encoded bytes. */
  record(encoded: Uint8Array): void {
    this.#mix(0x1b873593 ^ encoded.length)
    for (let i = 0; i < encoded.length; i++) this.#mix(encoded[i]!)
  }

  get chain(): Chain {
    return { high: this.#high >>> 0, low: this.#low >>> 0 }
  }

  #mix(word: number): void {
    let high = Math.imul(this.#high ^ word, 0xcc9e2d51)
    high = (high << 15) | (high >>> 17)
    let low = Math.imul(this.#low + word + 0x9e3779b9, 0x85ebca6b)
    low ^= low >>> 13
    this.#high = (Math.imul(high, 5) + 0xe6546b64 + low) | 0
    this.#low = Math.imul(low ^ high, 0xc2b2ae35)
  }
}
