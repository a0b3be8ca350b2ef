/**
 * A map of bounded weight that forgets what was not used for longest. It keeps two generations: what is
 * set or found goes into the young one, and once that weighs `capacity`, it becomes the old one and the
 * old one is dropped. So at least the last `capacity` of weight is held, and at most twice that; a hit on
 * the young generation writes nothing.
 */
export class BoundedMap<Key, Value extends NonNullable<unknown>> {
  readonly #capacity: number
  readonly #weigh: (value: Value) => number
  #young = new Map<Key, Value>()
  #old = new Map<Key, Value>()
  #weight = 0

  /**
   * @param weigh a value's weight; 1 for each where it is absent
   * @throws RangeError when `capacity` is not at least 1
   */
  constructor(capacity: number, weigh: (value: Value) => number = () => 1) {
    if (!(capacity >= 1)) throw new RangeError(`a capacity is at least 1, not ${capacity}`)
    this.#capacity = capacity
    this.#weigh = weigh
  }

  get(key: Key): Value | undefined {
    const young = this.#young.get(key)
    if (young !== undefined) return young
    const old = this.#old.get(key)
    if (old !== undefined) this.set(key, old)
    return old
  }

  /** `key` must be absent, or old: setting a young key anew would count its weight twice. */
  set(key: Key, value: Value): void {
    this.grow(this.#weigh(value))
    this.#old.delete(key)
    this.#young.set(key, value)
  }

  /** Counts `weight` more, for a value that has become heavier. */
  grow(weight: number): void {
    this.#weight += weight
    if (this.#weight <= this.#capacity) return
    this.#old = this.#young
    this.#young = new Map()
    this.#weight = weight
  }

  get size(): number {
    return this.#young.size + this.#old.size
  }
}
