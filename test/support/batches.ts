import assert from 'node:assert/strict'
import {
  type BatchHeader,
  chainItem,
  compress,
  type Encoding,
  encodeBatch,
  encodeItem,
  type Item,
  inspectBatch,
  itemCount,
  outlineBatch,
} from '../../shared/batch.ts'
import { type Chain, chainStart } from '../../shared/chain.ts'
import type { Lane } from '../../shared/reading.ts'
import { readings } from './readings.ts'

/** 16 bytes that are told apart by one. */
export function incarnation(id: number): Uint8Array {
  const bytes = new Uint8Array(16).fill(id)
  // An agent may live more often than a byte can count.
  if (id > 255) new DataView(bytes.buffer).setUint32(4, id)
  return bytes
}

/** An agent that numbers what it sends, as far as the collector can see. */
export class TestAgent {
  readonly name: string
  readonly incarnation: Uint8Array
  readonly lane: Lane
  predecessor: BatchHeader['predecessor']
  next = 1
  chain: Chain = chainStart

  constructor(
    options: {
      name?: string
      incarnation?: Uint8Array
      lane?: Lane
      predecessor?: BatchHeader['predecessor']
    } = {},
  ) {
    this.name = options.name ?? 'gw-001'
    this.incarnation = options.incarnation ?? incarnation(1)
    this.lane = options.lane ?? 'bulk'
    this.predecessor = options.predecessor
  }

  /** The next batch; the agent goes on behind it. */
  batch(items: readonly Item[], changes: Partial<BatchHeader> = {}): TestBatch {
    const count = items.reduce((sum, item) => sum + itemCount(item), 0)
    const after = items.reduce((chain, item) => chainItem(item, chain), this.chain)
    const header: BatchHeader = {
      agent: this.name,
      incarnation: this.incarnation,
      lane: this.lane,
      first: this.next,
      last: this.next + count - 1,
      before: this.chain,
      after,
      predecessor: this.next === 1 ? this.predecessor : undefined,
      boot: incarnation(0xb0),
      sentMs: 1_767_225_600_000,
      ledger: undefined,
      ...changes,
    }
    this.next += count
    this.chain = after
    return new TestBatch(header, items)
  }

  /** The next batch of `count` readings, whose values are their sequences. */
  readings(count: number, changes: Partial<BatchHeader> = {}): TestBatch {
    return this.batch([{ kind: 'readings', readings: readings(count, this.next) }], changes)
  }
}

/** A batch that says the same of itself, but whose columns cannot be read. */
export function unreadable(batch: TestBatch): Uint8Array {
  const bytes = Buffer.from(batch.body('identity'))
  const outline = () => ({ ...outlineBatch(bytes), check: undefined })
  const summary = outline()
  for (let at = bytes.length - 1; at >= 0; at--) {
    bytes[at]! ^= 1
    try {
      assert.deepEqual(outline(), summary)
      assert.throws(() => inspectBatch(bytes), { code: 'WIRE_INVALID' })
      return bytes
    } catch {
      bytes[at]! ^= 1
    }
  }
  throw new Error('no byte of it spoils it so')
}

export class TestBatch {
  readonly header: BatchHeader
  readonly items: readonly Item[]

  constructor(header: BatchHeader, items: readonly Item[]) {
    this.header = header
    this.items = items
  }

  body(encoding: Encoding = 'gzip'): Uint8Array {
    return compress(encodeBatch(this.header, this.items.map(encodeItem)), encoding)
  }
}
