// Posts batches that were made before the clock starts: `node poster.ts <port> <agents> <size> <batches>
// [name]`, where the agents are called `<name>-0`, `<name>-1` …
// Each agent has a connection of its own and one batch on its way, as the real one. It posts half of them
// unmeasured, so that the other side is warm, and prints `ready`; told `go` it posts the other half and
// prints `{"seconds": …}`.
import { connect } from 'node:net'
import { createInterface } from 'node:readline'
import {
  chainItem,
  compress,
  encodeBatch,
  encodeItem,
  type Item,
  mergeItems,
} from '../../../shared/batch.ts'
import { chainStart } from '../../../shared/chain.ts'
import type { AdmittedReading } from '../../../shared/reading.ts'
import { groupsOf, plant } from '../wire/sources.ts'

const [port = 0, agents = 1, size = 10_000, batches = 100] = process.argv.slice(2, 6).map(Number)
const name = process.argv[6] ?? 'gw'
const head = (length: number) =>
  Buffer.from(
    'POST /v1/batches HTTP/1.1\r\nhost: collector\r\ncontent-type: application/cbor\r\n' +
      `content-encoding: zstd\r\ncontent-length: ${length}\r\n\r\n`,
  )
const requests = makeRequests()
const half = batches >> 1
await Promise.all(requests.map((list) => post(list.slice(0, half))))
const lines = createInterface(process.stdin)[Symbol.asyncIterator]()
process.stdout.write('ready\n')
await lines.next()
const startedMs = performance.now()
await Promise.all(requests.map((list) => post(list.slice(half))))
process.stdout.write(`${JSON.stringify({ seconds: (performance.now() - startedMs) / 1e3 })}\n`)
process.exit()

/** Per agent its requests, in order. All agents send the same readings. */
function makeRequests(): Buffer[][] {
  const distinct = Math.max(1, Math.min(batches, Math.floor(100_000 / size)))
  const { readings } = plant(distinct * size)
  const items = Array.from({ length: distinct }, (_, i): { item: Item; bytes: Uint8Array } => {
    const some = readings.slice(i * size, (i + 1) * size)
    // As after an outage: what came in small groups has been joined.
    const [bytes] = mergeItems(groupsOf(some).map((group) => encodeItem(itemOf(group))))
    return { item: itemOf(some), bytes: bytes! }
  })
  const made = Array.from({ length: agents }, (): Buffer[] => [])
  let before = chainStart
  for (let batch = 0; batch < batches; batch++) {
    const { item, bytes } = items[batch % distinct]!
    const after = chainItem(item, before)
    for (const [agent, list] of made.entries()) {
      const header = {
        agent: `${name}-${agent}`,
        incarnation: new Uint8Array(16).fill(1 + (agent % 250)),
        lane: 'bulk' as const,
        first: batch * size + 1,
        last: (batch + 1) * size,
        before,
        after,
        predecessor: undefined,
        boot: new Uint8Array(16),
        sentMs: 1_763_800_060_123,
        ledger: undefined,
      }
      const body = compress(encodeBatch(header, [bytes]), 'zstd')
      list.push(Buffer.concat([head(body.length), body]))
    }
    before = after
  }
  return made
}

function itemOf(readings: AdmittedReading[]): Item {
  return { kind: 'readings', readings }
}

/** One after the other. Answers are told apart by their length, and must be 2xx. */
function post(list: readonly Buffer[]): Promise<void> {
  return new Promise((resolve, reject) => {
    let next = 0
    let text = ''
    const socket = connect(port, '127.0.0.1', () => socket.write(list[next++]!))
    socket.setNoDelay(true)
    socket.on('error', reject)
    socket.on('data', (bytes) => {
      text += bytes.toString('latin1')
      const end = text.indexOf('\r\n\r\n')
      if (end < 0) return
      const length = Number(/content-length: (\d+)/i.exec(text)?.[1] ?? 0)
      if (text.length < end + 4 + length) return
      if (!/^HTTP\/1.1 2/.test(text)) return reject(new Error(text))
      text = ''
      if (next < list.length) socket.write(list[next++]!)
      else {
        socket.destroy()
        resolve()
      }
    })
  })
}
