import { invalid } from './failure.ts'

const none = new Uint8Array(0)
const scratch = new DataView(new ArrayBuffer(8))

/**
 * A column of big-endian IEEE 754 numbers, in planes: the first bytes of all, then the second bytes …,
 * because neighbours have sign, exponent and leading digits in common.
 */
export function floatColumn(values: readonly number[], width: 4 | 8): Uint8Array {
  const count = values.length
  if (count === 0) return none
  const column = new Uint8Array(count * width)
  for (let i = 0; i < count; i++) {
    if (width === 8) scratch.setFloat64(0, values[i]!)
    else scratch.setFloat32(0, values[i]!)
    for (let plane = 0; plane < width; plane++) column[plane * count + i] = scratch.getUint8(plane)
  }
  return column
}

export class FloatReader {
  readonly #bytes: Uint8Array
  readonly #width: 4 | 8
  readonly #name: string
  readonly #count: number
  #at = 0

  constructor(bytes: Uint8Array, width: 4 | 8, name: string) {
    if (bytes.length % width !== 0) throw invalid(`${name}: not a multiple of ${width} bytes`)
    this.#bytes = bytes
    this.#width = width
    this.#name = name
    this.#count = bytes.length / width
  }

  next(): number {
    if (this.#at >= this.#count) throw invalid(`${this.#name}: ends early`)
    for (let plane = 0; plane < this.#width; plane++)
      scratch.setUint8(plane, this.#bytes[plane * this.#count + this.#at]!)
    this.#at++
    return this.#width === 8 ? scratch.getFloat64(0) : scratch.getFloat32(0)
  }

  end(): void {
    if (this.#at !== this.#count) throw invalid(`${this.#name}: more than it should hold`)
  }
}
