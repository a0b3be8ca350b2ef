import { hashText } from '../shared/reading.ts'

/**
 * Repeatable random numbers: the same seed and name give the same sequence on every machine.
 *
 * Source: xoshiro128** 1.1, Blackman and Vigna, "Scrambled linear pseudorandom number generators",
 * ACM TOMS 47 (2021); seeded by splitmix32, as its authors advise.
 */
export class SeededRandom {
  readonly #state: [number, number, number, number]
  #spare: number | undefined

  /** @param name sets generators of one seed apart, so that adding a device changes no other one */
  constructor(seed: number, name: string) {
    let mix = hashText(`${seed}/${name}`)
    const next = () => {
      mix = (mix + 0x9e3779b9) | 0
      let z = Math.imul(mix ^ (mix >>> 16), 0x85ebca6b)
      z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35)
      return (z ^ (z >>> 16)) >>> 0
    }
    this.#state = [next(), next(), next(), next()]
  }

  /** Uniform in [0, 1), 53 bits. */
  uniform(): number {
    return ((this.#next() >>> 5) * 2 ** 26 + (this.#next() >>> 6)) / 2 ** 53
  }

  /** Uniform among 0 … `count` − 1. */
  below(count: number): number {
    return Math.floor(this.uniform() * count)
  }

  /** Normal with mean 0 and deviation 1, by the polar method (Marsaglia and Bray, 1964). */
  gaussian(): number {
    if (this.#spare !== undefined) {
      const spare = this.#spare
      this.#spare = undefined
      return spare
    }
    for (;;) {
      const x = 2 * this.uniform() - 1
      const y = 2 * this.uniform() - 1
      const square = x * x + y * y
      if (square >= 1 || square === 0) continue
      const scale = Math.sqrt((-2 * Math.log(square)) / square)
      this.#spare = y * scale
      return x * scale
    }
  }

  /** Exponential with mean 1: the wait for the next of events that come at random. */
  exponential(): number {
    return -Math.log(1 - this.uniform())
  }

  #next(): number {
    const s = this.#state
    const result = Math.imul(rotate(Math.imul(s[1], 5), 7), 9) >>> 0
    const shifted = s[1] << 9
    s[2] ^= s[0]
    s[3] ^= s[1]
    s[1] ^= s[2]
    s[0] ^= s[3]
    s[2] ^= shifted
    s[3] = rotate(s[3], 11)
    return result
  }
}

function rotate(value: number, bits: number): number {
  return (value << bits) | (value >>> (32 - bits))
}
