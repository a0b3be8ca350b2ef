const scratch = new DataView(new ArrayBuffer(4))

/** Bits of the binary16 that equals `value`, if one does. Every NaN becomes the one quiet NaN. */
export function toHalf(value: number): number | undefined {
  if (Number.isNaN(value)) return 0x7e00
  if (Math.fround(value) !== value) return undefined
  scratch.setFloat32(0, value)
  const bits = scratch.getUint32(0)
  const sign = (bits >>> 16) & 0x8000
  const exponent = (bits >>> 23) & 0xff
  const mantissa = bits & 0x7fffff
  if (exponent === 0xff) return sign | 0x7c00
  if (exponent === 0 && mantissa === 0) return sign
  const shifted = exponent - 112
  if (shifted >= 31) return undefined
  if (shifted >= 1) return mantissa & 0x1fff ? undefined : sign | (shifted << 10) | (mantissa >> 13)
  // Subnormal in binary16: the leading 1 becomes explicit and moves right.
  const shift = 14 - shifted
  const whole = mantissa | 0x800000
  if (shift > 24 || whole & ((1 << shift) - 1)) return undefined
  return sign | (whole >> shift)
}

/** The number that binary16 bits stand for. */
export function fromHalf(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 31
  const mantissa = bits & 0x3ff
  if (exponent === 31) return mantissa ? Number.NaN : sign * Infinity
  if (exponent === 0) return sign * mantissa * 2 ** -24
  return sign * (1024 + mantissa) * 2 ** (exponent - 25)
}
