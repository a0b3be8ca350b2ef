type TypedArray = Float64Array | Int32Array | Uint32Array | Uint16Array | Uint8Array

/**
 * A typed array that is used again and again: what one item is made of is needed until the next one, and to
 * allocate it anew for each took longer than to fill it. Holds as much as the largest item so far.
 */
export class Scratch<Column extends TypedArray> {
  readonly #make: (length: number) => Column
  #column: Column

  constructor(make: (length: number) => Column) {
    this.#make = make
    this.#column = make(0)
  }

  /** With whatever was left in it; what was taken before is given up. */
  take(length: number): Column {
    if (this.#column.length < length) this.#column = this.#make(length)
    return this.#column.subarray(0, length) as Column
  }
}
