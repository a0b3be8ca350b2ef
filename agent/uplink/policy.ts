import { type Chain, chainFromBytes } from '../../shared/chain.ts'
import type { HttpAnswer } from '../../shared/ports.ts'
import type { Lane } from '../../shared/reading.ts'

/** What became of one batch, as far as the agent can know. */
export type Outcome =
  /** The collector holds everything up to `held`, durably. */
  | { kind: 'accepted'; held: number; chain: Chain }
  /** It held something of this batch already. */
  | { kind: 'duplicate'; held: number; chain: Chain }
  /** It holds less than the batch says, of this incarnation or of its predecessor. */
  | { kind: 'hole'; incarnation: Uint8Array | undefined; held: number; chain: Chain }
  /** It holds another history of this incarnation. */
  | { kind: 'fork' }
  /** It will never take the batch as it is. */
  | { kind: 'refused'; reason: string }
  /** It cannot read this content encoding, and names those that it can. */
  | { kind: 'encoding'; accepted: string[] }
  /** It asks to be left alone for a while. */
  | { kind: 'busy'; retryAfterMs: number; reason: string }
  /** No answer, or one that no collector of ours gives. Whether the batch arrived is not known. */
  | { kind: 'unknown'; reason: string; timedOut: boolean }

/** Reads an answer; anything that is not plainly a collector's is `unknown`, which changes nothing. */
export function readAnswer(answer: HttpAnswer): Outcome {
  const content = parse(answer.body)
  const code = typeof content?.code === 'string' ? content.code : undefined
  const { status } = answer
  if (status === 200 && (code === 'accepted' || code === 'duplicate')) {
    const held = readHeld(content)
    if (held) return { kind: code, ...held }
  }
  if (status === 409 && code === 'fork') return { kind: 'fork' }
  if (status === 409 && code === 'hole') {
    const held = readHeld(content)
    if (held) return { kind: 'hole', incarnation: readHex(content?.incarnation, 16), ...held }
  }
  const reason =
    typeof content?.message === 'string' ? content.message.slice(0, 200) : `status ${status}`
  // A proxy answers 400 too: only the collector's own word may cost a reading its place.
  if (status === 400 && code?.startsWith('WIRE_')) return { kind: 'refused', reason }
  if (status === 413) return { kind: 'refused', reason }
  if (status === 415)
    return {
      kind: 'encoding',
      accepted: (answer.headers['accept-encoding'] ?? '').split(',').map((name) => name.trim()),
    }
  if (status === 429 || status === 503)
    return { kind: 'busy', retryAfterMs: readRetryAfter(answer.headers['retry-after']), reason }
  return { kind: 'unknown', reason: `${hint(status)} (${reason})`, timedOut: false }
}

function hint(status: number): string {
  if (status === 401 || status === 403) return 'the collector does not let this agent in'
  if (status === 404 || status === 405)
    return 'no collector answers at this address: check uplink.url'
  return `the collector answered ${status}`
}

function parse(body: Uint8Array): Record<string, unknown> | undefined {
  try {
    const content: unknown = JSON.parse(new TextDecoder().decode(body))
    return typeof content === 'object' && content !== null
      ? (content as Record<string, unknown>)
      : undefined
  } catch {
    return undefined
  }
}

function readHeld(
  content: Record<string, unknown> | undefined,
): { held: number; chain: Chain } | undefined {
  const held = content?.held
  const chain = readHex(content?.chain, 8)
  return typeof held === 'number' && Number.isSafeInteger(held) && held >= 0 && chain
    ? { held, chain: chainFromBytes(chain) }
    : undefined
}

function readHex(text: unknown, bytes: number): Uint8Array | undefined {
  return typeof text === 'string' && /^[0-9a-f]*$/.test(text) && text.length === 2 * bytes
    ? new Uint8Array(Buffer.from(text, 'hex'))
    : undefined
}

/** Seconds, as RFC 9110 allows; a date would rest on the gateway's clock and is taken as a minute. */
function readRetryAfter(value: string | undefined): number {
  if (value === undefined) return 0
  const seconds = Number(value)
  return Number.isFinite(seconds) && seconds >= 0 ? Math.min(seconds, 3600) * 1000 : 60_000
}

/**
 * Time before try `attempt` (0 is the first, at once): uniform in 0 … min(max, base · 2^(attempt − 1)),
 * so that a fleet does not come back as one.
 *
 * @param uniform in [0, 1)
 */
export function retryDelayMs(
  attempt: number,
  { base, max }: { base: number; max: number },
  uniform: number,
): number {
  return attempt === 0 ? 0 : uniform * Math.min(max, base * 2 ** Math.min(attempt - 1, 32))
}

/** After this many batches of better lanes in a row, a waiting lane gets one. */
const patience: Record<Lane, number> = { urgent: 0, bulk: 4, quarantine: 8 }

/** Urgent first, but no lane that is due starves. `passedOver` counts batches since its last turn. */
export function chooseLane(
  due: ReadonlySet<Lane>,
  passedOver: Readonly<Record<Lane, number>>,
): Lane | undefined {
  for (const lane of ['quarantine', 'bulk'] as const)
    if (due.has(lane) && passedOver[lane] >= patience[lane]) return lane
  for (const lane of ['urgent', 'bulk', 'quarantine'] as const) if (due.has(lane)) return lane
  return undefined
}
