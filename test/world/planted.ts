import { registerHooks } from 'node:module'
import { Worker } from 'node:worker_threads'

/**
 * A deliberate bug: a line of the shipped code that is another line while a world runs. The place must be
 * there exactly once, so a change of the code that makes a bug meaningless is noticed.
 */
export interface PlantedBug {
  name: string
  file: string
  from: string
  to: string
}

/** The first history in which a bug shows. */
export interface Caught {
  seed: number
  /** Numbers of the faults that it takes, where they were looked for. */
  only: readonly number[] | undefined
  promise: string
  text: string
}

/** Where a planted bug is looked for. */
export interface Hunt {
  bug: PlantedBug
  /** Seeds, both inclusive. */
  from: number
  to: number
  only?: readonly number[] | undefined
  /** Looks for the faults that it takes, too. */
  shrinks?: boolean
}

/** Undefined when no history shows the bug. */
export async function hunt(hunt: Hunt): Promise<Caught | undefined> {
  const worker = new Worker(new URL('planted-worker.ts', import.meta.url), { workerData: hunt })
  return new Promise((resolve, reject) => {
    worker.once('message', resolve)
    worker.once('error', reject)
  })
}

export const plantedBugs: readonly PlantedBug[] = [
  {
    name: 'acknowledge before the commit',
    file: 'agent/agent.ts',
    from: 'await this.#exclusive(() => this.#take(group, () => source.acknowledge(group)))',
    to: `source.acknowledge(group)
        await this.#exclusive(() => this.#take(group, () => {}))`,
  },
  {
    name: 'acknowledge before the sync',
    file: 'agent/outbox/outbox.ts',
    from: `...(tail?.changes ?? []),
          this.#putTotals(totals, draft.received, draft),
        ],
        true,`,
    to: `...(tail?.changes ?? []),
          this.#putTotals(totals, draft.received, draft),
        ],
        false,`,
  },
  {
    name: 'delete although no answer came',
    file: 'agent/uplink/uplink.ts',
    from: `case 'unknown':
        // A`,
    to: `case 'unknown':
        await outbox.release(cut)
        delete this.#prepared[lane]
        return undefined
        // A`,
  },
  {
    name: 'delete before the cursor is durable',
    file: 'collector/log/embedded/partition.ts',
    from: 'file.writeSynced(chunks, group)',
    to: 'file.write(chunks, group)',
  },
  {
    name: 'write where room is being made',
    file: 'collector/log/embedded/partition.ts',
    from: 'await this.#active.headroom.free(summary.end + bytes)',
    to: '',
  },
  {
    name: 'reuse a sequence',
    file: 'agent/outbox/outbox.ts',
    from: 'id: this.#random.bytes(16),',
    to: 'id: before?.id ?? this.#random.bytes(16),',
  },
  {
    name: 'ignore a write error',
    file: 'agent/outbox/outbox.ts',
    from: "throw this.#fail('OUTBOX_WRITE_FAILED', cause)",
    to: 'void cause',
  },
  {
    name: 'late PUBACK on a new session',
    file: 'agent/source/source.ts',
    from: 'handed.link.acknowledge(group)',
    to: ';(this.#link?.session ? this.#link : handed.link).acknowledge(group)',
  },
  {
    name: 'dedupe by window',
    file: 'collector/log/held.ts',
    from: 'if (header.last <= own.held) {',
    to: `if (header.last <= own.held - 3) {
      const alarms = this.admit({ ...header, predecessor: predecessor?.incarnation })
      return { code: 'accepted', held: header.last, chain: header.after, alarms }
    }
    if (header.last <= own.held) {`,
  },
  {
    name: 'drop a hole',
    file: 'collector/log/held.ts',
    from: "if (header.first > own.held + 1) return { code: 'hole', incarnation, lane, ...own }",
    to: `if (header.first > own.held + 1) {
      const alarms = this.admit({ ...header, predecessor: predecessor?.incarnation })
      return { code: 'accepted', held: header.last, chain: header.after, alarms }
    }`,
  },
  {
    name: "drop a predecessor's hole",
    file: 'collector/log/held.ts',
    from: 'if (before.held < predecessor.last[lane])',
    to: 'if (before.held < 0)',
  },
  {
    name: 'trust a torn tail',
    file: 'collector/log/embedded/recovery.ts',
    from: 'bodies: () => true',
    to: 'bodies: () => false',
  },
  {
    name: "skip an entry's CRC",
    file: 'agent/outbox/entry.ts',
    from: 'if (view.getUint32(4) !== checksum(key, bytes)) return undefined',
    to: '',
  },
  {
    name: "skip a frame's CRC",
    file: 'collector/log/embedded/frame.ts',
    from: 'return body.length === frame.bodyLength && crc32c.buf(body, 0) === frame.bodyCrc',
    to: 'return body.length === frame.bodyLength',
  },
  {
    name: 'trust the second sync',
    file: 'collector/log/embedded/partition.ts',
    from: 'file.writeSynced(chunks, group)',
    to: 'file.write(chunks, group).then(() => file.sync().catch(() => file.sync()))',
  },
  {
    name: 'a segment without a durable name',
    file: 'collector/log/embedded/partition.ts',
    from: `await file.sync()
    await disk.syncDirectory(directory)`,
    to: 'await file.sync()',
  },
  {
    name: 'know no repeat again',
    file: 'agent/source/marks.ts',
    from: '(mark && this.#repeated(mark, group))',
    to: '(mark && undefined)',
  },
  {
    name: 'take the same content for a repeat',
    file: 'agent/source/marks.ts',
    from: 'if (usedIn > 0) {',
    to: `for (const { marks } of this.#records)
      for (const known of marks) if (known.high === mark.high && known.low === mark.low) return known
    if (usedIn > 0) {`,
  },
  {
    name: 'evict what is on its way',
    file: 'agent/outbox/outbox.ts',
    from: 'const from = pinned ? { ordinal: pinned.ordinal, first: pinned.last + 1 } : this.#head[lane]',
    to: 'const from = this.#head[lane]; void pinned',
  },
  {
    name: 'name no predecessor',
    file: 'agent/uplink/uplink.ts',
    from: 'cut.first === 1\n',
    to: 'cut.first === -1\n',
  },
  {
    name: 'declare no hole at recovery',
    file: 'agent/outbox/recovery.ts',
    from: 'if (missing > 0) declareLost(place.ordinal, missing, entry.before, false)',
    to: 'if (missing > 0) laneOf(numbered, place.ordinal)[lane] = { sequence: place.first - 1, chain: entry.before }',
  },
  {
    name: 'a release that forgets the ledger',
    file: 'agent/outbox/outbox.ts',
    from: `          this.#putTotals(totals, -cut.received),
        ],
        false,`,
    to: `        ],
        false,`,
  },
  {
    name: 'believe in a session that is gone',
    file: 'agent/source/source.ts',
    from: 'if (!sessionPresent || !known ||',
    to: 'if (!known ||',
  },
  {
    name: 'a full disk ends the agent',
    file: 'agent/agent.ts',
    from: 'if (!(error instanceof OutboxFailure)) throw error',
    to: 'throw error',
  },
  // What the world has found in earnest, put back.
  {
    name: "a partition's folder without a durable name",
    file: 'collector/log/embedded/partition.ts',
    from: 'await makeFolder(disk, directory)',
    to: 'await disk.makeDirectory(directory)',
  },
  {
    name: 'set the numbering back',
    file: 'agent/outbox/outbox.ts',
    from: `if (!own)
        laneOf(this.#numbered`,
    to: 'laneOf(this.#numbered',
  },
  {
    name: 'count a delivery twice',
    file: 'agent/outbox/recovery.ts',
    from: 'totals.ledger.forwarded += lost',
    to: 'totals.ledger.received -= lost',
  },
  {
    name: "a gap's rest at a hash of our own",
    file: 'agent/outbox/outbox.ts',
    from: 'cut.endsInGap ? continueFrom(cut) : cut.changes',
    to: 'cut.changes',
  },
  {
    name: 'declare no loss at the end of a lane',
    file: 'agent/outbox/recovery.ts',
    from: 'if (missing && missing > 0) declareLost(ordinal, missing, end.chain, false)',
    to: '',
  },
  {
    name: 'forget the name of a damaged incarnation',
    file: 'agent/outbox/recovery.ts',
    from: 'return incarnations.get(ordinal)?.id ?? successor?.predecessor?.id',
    to: 'return successor?.predecessor?.id',
  },
  {
    name: 'buffered for ever, held by nobody',
    file: 'agent/agent.ts',
    from: 'outbox.settleHeld(filter.held)',
    to: '',
  },
  // What keeps a reading that was left out within its bound (P10).
  {
    name: 'a step twice as high as it says',
    file: 'agent/filter/reduce/hold.ts',
    from: 'Math.abs(value - kept) <= this.#tolerance.epsilon',
    to: 'Math.abs(value - kept) <= 2 * this.#tolerance.epsilon',
  },
  {
    name: 'a line that passes by what it leaves out',
    file: 'agent/filter/reduce/cone.ts',
    from: `    numbers[low] = lowest
    numbers[high] = highest
    return true`,
    to: '    return true',
  },
  {
    name: 'a start that keeps nothing first',
    file: 'agent/filter/reduce/reduction.ts',
    from: 'out.keep(first, true)',
    to: 'out.drop(first, true)',
  },
  {
    name: 'lean on what was evicted',
    file: 'agent/outbox/outbox.ts',
    from: 'afterLoss(this.#onLoss(seriesOf(items)))',
    to: 'afterLoss(this.#onLoss([]))',
  },
  {
    name: 'thin further than is said',
    file: 'agent/outbox/thinning.ts',
    from: 'roundedUp(epsilon + series.epsilon)',
    to: 'roundedUp((epsilon + series.epsilon) / 2)',
  },
]

const root = new URL('../../', import.meta.url)

/** From now on the bug is in every module of this thread that is loaded. */
export function plant({ file, from, to }: PlantedBug): void {
  const target = new URL(file, root).href
  registerHooks({
    load(url, context, nextLoad) {
      const loaded = nextLoad(url, context)
      if (url !== target) return loaded
      return { ...loaded, source: replaceOnce(String(loaded.source), from, to) }
    },
  })
}

/** @throws when `from` is not there exactly once */
export function replaceOnce(source: string, from: string, to: string): string {
  const parts = source.split(from)
  if (from === '' || parts.length !== 2)
    throw new Error(`a planted bug is out of date: ${parts.length - 1} times ${from}`)
  return parts.join(to)
}
