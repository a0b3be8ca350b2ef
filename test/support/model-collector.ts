import { type Batch, decodeBatch, inflate, inspectBatch } from '../../shared/batch.ts'
import { type Chain, chainStart, chainToBytes, sameChain } from '../../shared/chain.ts'
import type { HttpAnswer, HttpLink, HttpRequest } from '../../shared/ports.ts'
import type { AdmittedReading } from '../../shared/reading.ts'

/**
 * What a collector promises an uplink, in its simplest form: memory only. `before` may answer in its
 * stead or throw, as a bad link does.
 */
export class ModelCollector implements HttpLink {
  readonly batches: Batch[] = []
  readonly held = new Map<string, { sequence: number; chain: Chain }>()
  /** Content encodings of what was asked of it and not answered in its stead. */
  readonly encodings: string[] = []
  requests = 0
  before: (request: HttpRequest) => HttpAnswer | undefined = () => undefined
  /** Answers are lost after the batch was taken. */
  loseAnswers = 0
  refuse: (readings: readonly AdmittedReading[]) => boolean = () => false

  async post(request: HttpRequest): Promise<HttpAnswer> {
    this.requests += 1
    const instead = this.before(request)
    if (instead) return instead
    const encoding = (request.headers['content-encoding'] ?? 'identity') as 'identity'
    this.encodings.push(encoding)
    const bytes = inflate(request.body, encoding, 8 * 2 ** 20)
    inspectBatch(bytes)
    const batch = decodeBatch(bytes)
    const answer = this.#take(batch)
    if (this.loseAnswers > 0) {
      this.loseAnswers -= 1
      throw new Error('socket hang up')
    }
    return answer
  }

  async close(): Promise<void> {}

  /** Every reading taken, in the order of the log. */
  get readings(): AdmittedReading[] {
    return this.batches.flatMap(({ items }) =>
      items.flatMap((item) => (item.kind === 'readings' ? item.readings : [])),
    )
  }

  #take(batch: Batch): HttpAnswer {
    const { header, items } = batch
    const key = `${Buffer.from(header.incarnation).toString('hex')}/${header.lane}`
    const held = this.held.get(key) ?? { sequence: 0, chain: chainStart }
    const readings = items.flatMap((item) => (item.kind === 'readings' ? item.readings : []))
    if (this.refuse(readings))
      return json(400, { code: 'WIRE_MALFORMED', message: 'refused by the model' })
    if (header.first <= held.sequence) return answer(200, 'duplicate', held)
    if (header.first > held.sequence + 1) return answer(409, 'hole', held)
    if (!sameChain(header.before, held.chain)) return answer(409, 'fork', held)
    const now = { sequence: header.last, chain: header.after }
    this.held.set(key, now)
    this.batches.push(batch)
    return answer(200, 'accepted', now)
  }
}

function answer(
  status: number,
  code: string,
  held: { sequence: number; chain: Chain },
): HttpAnswer {
  const chain = Buffer.from(chainToBytes(held.chain)).toString('hex')
  return json(status, { code, held: held.sequence, chain })
}

export function json(
  status: number,
  content: unknown,
  headers: Record<string, string> = {},
): HttpAnswer {
  return { status, headers, body: new TextEncoder().encode(JSON.stringify(content)) }
}
