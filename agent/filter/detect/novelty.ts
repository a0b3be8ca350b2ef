import { StateProblem, type StateReader, type StateWriter } from '../state-bytes.ts'
import { warmth } from '../warmth.ts'

/** Cells over the range seen, and beyond it on either side. Odd, so that the middle of the range lies inside a cell. */
const inner = 129
const outer = 32
const cellCount = inner + 2 * outer
const centre = (cellCount - 1) / 2
/** Cells hold 16 bits: at this count all are halved, which also forgets. */
const capacity = 65_535

/** Numbers of a histogram beside its counts, and doubles that both take. */
const numberCount = 10
/** Counts that a line of a processor's cache holds. */
const countsPerLine = 32
const stride = numberCount + Math.ceil(cellCount / 4)

/**
 * Histograms share blocks of memory: with thousands of series it is fetching from memory that a reading
 * costs, and what lies together is fetched together. An array of its own would also cost half as much again.
 */
class Block {
  readonly numbers = new Float64Array(64 * stride)
  readonly counts = new Uint16Array(this.numbers.buffer)
  #taken = 0

  /** Where the next histogram lies, in doubles; undefined when the block is full. */
  take(): number | undefined {
    if (this.#taken === this.numbers.length) return undefined
    this.#taken += stride
    return this.#taken - stride
  }
}
let block = new Block()

/** None of these is sharp: `npm run bench:filter` prints what it costs to move them. */
export const noveltyTuning = {
  /** Readings up to so many cells farther out count as being like a value. */
  outwards: 20,
  /** Likewise back towards the bulk: a hair beyond the last extreme is nothing new. */
  tolerance: 4,
  /** Readings before anything is judged: fewer say too little about the range. */
  warmUp: 200,
  /** The grid is laid anew whenever so many times more has been seen. */
  growth: 1.5,
  /** Share of readings cut off at either end to find the bulk. */
  tail: 0.05,
  /** The scale is linear up to so many widths of the bulk. */
  bulks: 3,
  /** A reading never seen the like of counts as so many; more would hide rare events in short series. */
  prior: 0.2,
}
export type NoveltyTuning = typeof noveltyTuning

/**
 * How rarely has a value been seen that lies as far out as this one? A histogram answers.
 *
 * A value is compared with the readings from a little inside of it to some way outside of it, once upwards
 * and once downwards; the emptier side counts. So a new extreme is as surprising as a value in an empty gap
 * between two habits, and a mere hair beyond the last extreme is not. Distances are taken on a scale
 * around the median that is linear over the bulk of what was seen and logarithmic beyond, so that neither a
 * single spike nor a narrow bulk spoils the view of the other. Everything is relative to what was seen:
 * value → a·value + b changes nothing.
 *
 * Cost: about 40 additions, and a logarithm outside the bulk. State: 386 bytes of counts and ten numbers; 1.6 KB
 * more during the first 200 readings.
 */
export class Novelty {
  readonly #tuning: NoveltyTuning
  readonly #block: Block
  /** Where the numbers lie in the block, and the counts. */
  readonly #numbers: number
  readonly #cells: number
  #first: Float64Array | undefined

  constructor(tuning: NoveltyTuning = noveltyTuning) {
    this.#tuning = tuning
    this.#first = new Float64Array(tuning.warmUp)
    let at = block.take()
    if (at === undefined) {
      block = new Block()
      at = block.take()!
    }
    this.#block = block
    this.#numbers = at
    this.#cells = 4 * (at + numberCount)
    this.#least = Infinity
    this.#most = -Infinity
    this.#perCell = 1
    this.#rarity = 1
    this.#layAt = tuning.warmUp
  }

  /**
   * Learns from a value, and says in `rarity` how rare it is.
   *
   * @param value finite
   */
  take(value: number): void {
    if (this.#first) this.#first[this.#seen] = value
    else {
      const cell = this.#cellOf(value)
      this.#judge(cell)
      this.#block.counts[this.#cells + cell]!++
      this.#count++
    }
    if (value < this.#least) this.#least = value
    if (value > this.#most) this.#most = value
    if (++this.#seen >= this.#layAt) this.#lay()
    else if (this.#count === capacity) this.#forget()
  }

  warm(): void {
    const { numbers, counts } = this.#block
    let sum = numbers[this.#numbers]! + numbers[this.#numbers + numberCount - 1]!
    for (let i = 0; i < cellCount; i += countsPerLine) sum += counts[this.#cells + i]!
    warmth[0] = sum
  }

  /** The middle of what was seen as of the last laying; NaN during warm-up. */
  get median(): number {
    return this.#first ? Number.NaN : this.#median
  }

  #cellOf(value: number): number {
    const offset = value - this.#median
    // Without a scale all readings were equal: anything else is out of sight.
    const place =
      this.#scale > 0 ? bent(offset / this.#scale) - this.#middle : offset * Infinity || 0
    const cell = Math.floor(place * this.#perCell + centre + 0.5)
    return cell < 0 ? 0 : cell >= cellCount ? cellCount - 1 : cell
  }

  #valueAt(cell: number): number {
    const place = (cell - centre) / this.#perCell + this.#middle
    return this.#median + this.#scale * straight(place)
  }

  #judge(cell: number): void {
    const { tolerance, outwards, prior } = this.#tuning
    const around = this.#sum(cell - tolerance, cell + tolerance)
    const above = this.#sum(cell + tolerance + 1, cell + outwards)
    const below = this.#sum(cell - outwards, cell - tolerance - 1)
    const alike = around + Math.min(above, below)
    this.#rarity = (this.#count + 1) / (alike + prior)
  }

  /** Readings in the cells from one to another, as far as there are such cells. */
  #sum(first: number, last: number): number {
    const { counts } = this.#block
    const end = this.#cells + Math.min(last, cellCount - 1)
    let sum = 0
    for (let at = this.#cells + Math.max(first, 0); at <= end; at++) sum += counts[at]!
    return sum
  }

  /** Lays the grid over what has been seen, and moves the counts onto it. */
  #lay(): void {
    this.#layAt = Math.ceil(this.#seen * this.#tuning.growth)
    const cells = this.#all
    const { tail } = this.#tuning
    if (this.#first) {
      const sorted = this.#first.slice(0, this.#seen).sort()
      this.#first = undefined
      const cut = Math.floor(sorted.length * tail)
      this.#scaleTo(
        (sorted[(sorted.length - 1) >> 1]! + sorted[sorted.length >> 1]!) / 2,
        sorted[sorted.length - 1 - cut]! - sorted[cut]!,
      )
      for (const value of sorted) cells[this.#cellOf(value)]!++
      this.#count = sorted.length
      return
    }
    const old = cells.slice()
    // Three points spread a cell's readings over its width, in case the new cells are finer.
    const points = new Float64Array(3 * cellCount)
    for (let i = 0; i < cellCount; i++)
      for (let k = 0; k < 3 && old[i]! > 0; k++)
        points[3 * i + k] = Math.min(
          this.#most,
          Math.max(this.#least, this.#valueAt(i + (k - 1) / 3)),
        )
    this.#scaleTo(
      (this.#quantile(old, 0.5, 1) + this.#quantile(old, 0.5, -1)) / 2,
      this.#quantile(old, tail, -1) - this.#quantile(old, tail, 1),
    )
    cells.fill(0)
    for (let i = 0; i < cellCount; i++) {
      const count = old[i]!
      if (count === 0) continue
      const side = Math.floor(count / 3)
      cells[this.#cellOf(points[3 * i]!)]! += side
      cells[this.#cellOf(points[3 * i + 1]!)]! += count - 2 * side
      cells[this.#cellOf(points[3 * i + 2]!)]! += side
    }
  }

  /** Value with `share` of the readings below it (step 1) or above it (step -1). */
  #quantile(cells: Uint16Array, share: number, step: 1 | -1): number {
    let left = share * this.#count
    let cell = step > 0 ? 0 : cellCount - 1
    for (; left > cells[cell]!; cell += step) left -= cells[cell]!
    const inside = cells[cell]! > 0 ? left / cells[cell]! - 0.5 : 0
    return Math.min(this.#most, Math.max(this.#least, this.#valueAt(cell + step * inside)))
  }

  #scaleTo(median: number, bulk: number): void {
    const range = this.#most - this.#least
    const scale = Math.max(this.#tuning.bulks * bulk, range * 1e-4)
    this.#median = median
    this.#scale = scale
    if (range === 0) return
    const low = bent((this.#least - median) / scale)
    const high = bent((this.#most - median) / scale)
    this.#middle = (low + high) / 2
    this.#perCell = (inner - 1) / (high - low)
  }

  /** Halves all counts; extremes that are forgotten by it no longer stretch the range. */
  #forget(): void {
    const cells = this.#all
    let count = 0
    let low = -1
    let high = -1
    for (let i = 0; i < cellCount; i++) {
      const half = cells[i]! >> 1
      cells[i] = half
      count += half
      if (half > 0) {
        if (low < 0) low = i
        high = i
      }
    }
    this.#count = count
    this.#least = Math.max(this.#least, this.#valueAt(low - 0.5))
    this.#most = Math.min(this.#most, this.#valueAt(high + 0.5))
    this.#lay()
  }

  save(writer: StateWriter): void {
    writer.varint(this.#seen)
    writer.varint(this.#layAt)
    writer.float(this.#least)
    writer.float(this.#most)
    writer.float(this.#median)
    writer.float(this.#scale)
    writer.float(this.#middle)
    writer.float(this.#perCell)
    writer.byte(this.#first ? 1 : 0)
    if (this.#first) for (let i = 0; i < this.#seen; i++) writer.float(this.#first[i]!)
    else for (const count of this.#all) writer.varint(count)
  }

  /** @throws StateProblem */
  load(reader: StateReader): void {
    this.#seen = reader.varint()
    this.#layAt = reader.varint()
    this.#least = reader.float()
    this.#most = reader.float()
    this.#median = reader.float()
    this.#scale = reader.float()
    this.#middle = reader.float()
    this.#perCell = reader.float()
    if (reader.byte() === 1) {
      const first = new Float64Array(this.#tuning.warmUp)
      if (this.#seen >= first.length) throw new StateProblem('a longer warm-up')
      for (let i = 0; i < this.#seen; i++) first[i] = reader.float()
      this.#first = first
      return
    }
    this.#first = undefined
    this.#count = 0
    const cells = this.#all
    for (let i = 0; i < cellCount; i++) {
      cells[i] = reader.count(capacity)
      this.#count += cells[i]!
    }
    if (this.#count >= capacity) throw new StateProblem('too many readings')
  }

  get #all(): Uint16Array {
    return this.#block.counts.subarray(this.#cells, this.#cells + cellCount)
  }

  /**
   * Of the value taken last: how many readings there were before for each one like it, 1 during warm-up. Its
   * binary logarithm is the surprise in bits. Not returned, since a number handed on may cost an object.
   */
  get rarity(): number {
    return this.#block.numbers[this.#numbers + 6]!
  }
  set #rarity(value: number) {
    this.#block.numbers[this.#numbers + 6] = value
  }

  /** Sum of the cells. */
  get #count(): number {
    return this.#block.numbers[this.#numbers + 7]!
  }
  set #count(value: number) {
    this.#block.numbers[this.#numbers + 7] = value
  }

  /** Readings seen, and at how many the grid is laid anew. */
  get #seen(): number {
    return this.#block.numbers[this.#numbers + 8]!
  }
  set #seen(value: number) {
    this.#block.numbers[this.#numbers + 8] = value
  }

  get #layAt(): number {
    return this.#block.numbers[this.#numbers + 9]!
  }
  set #layAt(value: number) {
    this.#block.numbers[this.#numbers + 9] = value
  }

  /** Extremes of what was seen, and not forgotten. */
  get #least(): number {
    return this.#block.numbers[this.#numbers]!
  }
  set #least(value: number) {
    this.#block.numbers[this.#numbers] = value
  }

  get #most(): number {
    return this.#block.numbers[this.#numbers + 1]!
  }
  set #most(value: number) {
    this.#block.numbers[this.#numbers + 1] = value
  }

  /** A value's place is bent((value − median) / scale); `middle` falls on the central cell. */
  get #median(): number {
    return this.#block.numbers[this.#numbers + 2]!
  }
  set #median(value: number) {
    this.#block.numbers[this.#numbers + 2] = value
  }

  get #scale(): number {
    return this.#block.numbers[this.#numbers + 3]!
  }
  set #scale(value: number) {
    this.#block.numbers[this.#numbers + 3] = value
  }

  get #middle(): number {
    return this.#block.numbers[this.#numbers + 4]!
  }
  set #middle(value: number) {
    this.#block.numbers[this.#numbers + 4] = value
  }

  get #perCell(): number {
    return this.#block.numbers[this.#numbers + 5]!
  }
  set #perCell(value: number) {
    this.#block.numbers[this.#numbers + 5] = value
  }
}

/** The scale on which distances are taken: x up to 1, from there on it goes with its logarithm. */
function bent(x: number): number {
  const size = Math.abs(x)
  return size <= 1 ? x : Math.sign(x) * (1 + Math.log(size))
}

function straight(place: number): number {
  const size = Math.abs(place)
  return size <= 1 ? place : Math.sign(place) * Math.exp(size - 1)
}
