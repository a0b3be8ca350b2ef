/**
 * Numbers as people and sensors write them: an integer over a power of ten. Dividing is exact in the
 * sense that matters, since IEEE 754 rounds it as it rounds the decimal text: 2150 / 10^2 is 21.50.
 *
 * Arithmetic leaves numbers such as 21.400000000000002 (214 · 0.1) that are a decimal but for a few
 * units in the last place; they are that decimal and a nudge.
 */
export const maxExponent = 22
const powers = Array.from({ length: maxExponent + 1 }, (_, e) => Number(`1e${e}`))
/** Scaled integers and their differences stay below, so that sums and zigzag codes are exact. */
export const scaledLimit = 2 ** 52
/** Decimals of more digits than this holds are too close to each other for a nudge to mean anything. */
const nudgedLimit = 2 ** 40
/** Units in the last place that a nudge spans. */
export const maxNudge = 15

/** Per exponent, values that it is the smallest for. */
const exact = new Uint32Array(maxExponent + 1)
const near = new Uint32Array(maxExponent + 1)

const scratch = new DataView(new ArrayBuffer(8))

export function unscale(scaled: number, e: number): number {
  return scaled / powers[e]!
}

/** value · 10^e where that is an integer that gives the value back, otherwise NaN. −0 is none. */
export function scaleExactly(value: number, e: number): number {
  const power = powers[e]!
  const scaled = Math.round(value * power)
  if (scaled / power !== value || scaled >= scaledLimit || scaled <= -scaledLimit) return Number.NaN
  return scaled !== 0 || Object.is(value, 0) ? scaled + 0 : Number.NaN
}

/** As `scaleExactly`, but also where the value is within `maxNudge`. */
export function scaleNearly(value: number, e: number): number {
  const power = powers[e]!
  const scaled = Math.round(value * power)
  if (scaled / power === value) return scaleExactly(value, e)
  if (scaled === 0 || scaled >= nudgedLimit || scaled <= -nudgedLimit) return Number.NaN
  // A unit in the last place is at least 2^-53 of the value.
  if (Math.abs(scaled / power - value) > Math.abs(value) * maxNudge * 2 ** -53) return Number.NaN
  return scaled
}

/** Units in the last place from scaled / 10^e to the value, away from zero. */
export function nudgeOf(value: number, scaled: number, e: number): number {
  const [high, low] = bitsOf(value)
  const [baseHigh, baseLow] = bitsOf(scaled / powers[e]!)
  return (high - baseHigh) * 2 ** 32 + (low - baseLow)
}

function bitsOf(value: number): [number, number] {
  scratch.setFloat64(0, value)
  return [scratch.getUint32(0), scratch.getUint32(4)]
}

/** The value whose 64 bits, read as an integer, are `nudge` more. */
export function nudged(value: number, nudge: number): number {
  scratch.setFloat64(0, value)
  scratch.setBigUint64(0, BigInt.asUintN(64, scratch.getBigUint64(0) + BigInt(nudge)))
  return scratch.getFloat64(0)
}

/**
 * The exponent with which the numbers take the fewest bits, or undefined when floats take fewer.
 *
 * @param values all numbers
 * @param guess an exponent that is likely to fit
 */
export function bestExponent(values: readonly number[], guess: number): number | undefined {
  exact.fill(0)
  near.fill(0)
  let largest = 0
  for (const value of values) {
    const e = smallestExponent(value, guess)
    if (e === undefined) continue
    guess = e
    if (Number.isNaN(scaleExactly(value, e))) near[e]!++
    else exact[e]!++
    largest = Math.max(largest, Math.abs(value))
  }
  let best: number | undefined
  let bestCost = values.length * floatBits
  let fitting = 0
  let nudges = 0
  for (let e = 0; e <= maxExponent; e++) {
    fitting += exact[e]! + near[e]!
    nudges += near[e]!
    if (exact[e]! + near[e]! === 0) continue
    const bits = Math.log2(1 + largest) + e * Math.log2(10)
    const cost = fitting * bits + nudges * nudgeBits + (values.length - fitting) * otherBits
    if (cost < bestCost) {
      best = e
      bestCost = cost
    }
  }
  return best
}

/** What a value costs, roughly, after compression: as a float, more for its nudge, as one of the others. */
const floatBits = 52
const nudgeBits = 14
const otherBits = 80

function smallestExponent(value: number, guess: number): number | undefined {
  if (!Number.isNaN(scaleNearly(value, guess))) {
    while (guess > 0 && !Number.isNaN(scaleNearly(value, guess - 1))) guess--
    return guess
  }
  const magnitude = Math.abs(value)
  for (let e = 0; e <= maxExponent && magnitude * powers[e]! < scaledLimit; e++)
    if (!Number.isNaN(scaleNearly(value, e))) return e
  return undefined
}
