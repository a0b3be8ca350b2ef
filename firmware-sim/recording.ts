import type { Sample, Samples } from '../shared/trace.ts'

/** Most samples handed on at a time. */
const maxBatch = 1000

/**
 * Plays several sources side by side as one recording, by time; of equal times the earlier source first.
 * The order within a source is kept, whatever its timestamps do.
 */
export async function* merge(sources: readonly Samples[]): AsyncGenerator<Sample[]> {
  const heads: Head[] = []
  try {
    for (const source of sources) {
      const head = new Head(source)
      heads.push(head)
      await head.fill()
    }
    for (;;) {
      const out: Sample[] = []
      while (out.length < maxBatch) {
        let next: Head | undefined
        for (const head of heads)
          if (head.current && (!next || head.current.atMs < next.current!.atMs)) next = head
        if (!next) break
        out.push(next.current!)
        if (!next.advance()) await next.fill()
      }
      if (out.length === 0) return
      yield out
    }
  } finally {
    for (const head of heads) await head.close()
  }
}

/** Where one source has got to. */
class Head {
  current: Sample | undefined
  readonly #iterator: AsyncIterator<Sample[]> | Iterator<Sample[]>
  #batch: Sample[] = []
  #position = 0

  constructor(source: Samples) {
    this.#iterator =
      Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]()
  }

  /** False when the next sample is not at hand and `fill` must fetch it. */
  advance(): boolean {
    this.current = this.#batch[++this.#position]
    return this.current !== undefined
  }

  async fill(): Promise<void> {
    do {
      const { done, value } = await this.#iterator.next()
      if (done) {
        this.current = undefined
        return
      }
      this.#batch = value
      this.#position = 0
      this.current = this.#batch[0]
    } while (!this.current)
  }

  async close(): Promise<void> {
    await this.#iterator.return?.()
  }
}

/**
 * Names of `count` devices that play `originals` dealt round: device k plays original k mod n, under the
 * name `<original>-001` for the first round, `-002` for the second, and so on.
 */
export function dealtNames(originals: readonly string[], count: number): Map<string, string[]> {
  const names = new Map<string, string[]>(originals.map((name) => [name, []]))
  for (let k = 0; k < count && originals.length > 0; k++) {
    const original = originals[k % originals.length]!
    const round = Math.floor(k / originals.length) + 1
    names.get(original)!.push(`${original}-${String(round).padStart(3, '0')}`)
  }
  return names
}

/** Has every sample sent by each of its device's namesakes; by nobody where it has none. */
export async function* deal(
  source: Samples,
  names: ReadonlyMap<string, readonly string[]>,
): AsyncGenerator<Sample[]> {
  for await (const batch of source)
    yield batch.flatMap((sample) =>
      (names.get(sample.device) ?? []).map((device) => ({ ...sample, device })),
    )
}

/**
 * Plays a recording again and again. Each round starts one step behind the end of the last one, all its
 * times moved on by as much, so that time goes on rising.
 */
export async function* repeat(play: () => Samples): AsyncGenerator<Sample[]> {
  let shiftMs = 0
  for (;;) {
    let first: number | undefined
    let last = 0
    let stepMs = 1000
    for await (const batch of play()) {
      for (const { atMs } of batch) {
        first ??= atMs
        if (atMs > last && last >= first) stepMs = atMs - last
        last = atMs
      }
      yield batch.map((sample) => ({
        ...sample,
        timeMs: sample.timeMs + shiftMs,
        atMs: sample.atMs + shiftMs,
      }))
    }
    if (first === undefined) return
    shiftMs += last - first + stepMs
  }
}

/** Ends a recording after `rows` samples, or before the one `durationMs` behind the first. */
export async function* limit(
  source: Samples,
  bounds: { rows?: number | undefined; durationMs?: number | undefined },
): AsyncGenerator<Sample[]> {
  const { rows = Number.POSITIVE_INFINITY, durationMs = Number.POSITIVE_INFINITY } = bounds
  let left = rows
  let endMs: number | undefined
  for await (const batch of source) {
    endMs ??= batch[0] && batch[0].atMs + durationMs
    let length = batch.findIndex(({ atMs }) => atMs >= endMs!)
    if (length < 0) length = batch.length
    length = Math.min(length, left)
    left -= length
    if (length > 0) yield length === batch.length ? batch : batch.slice(0, length)
    if (length < batch.length || left === 0) return
  }
}
