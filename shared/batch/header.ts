import type { BatchHeader, Predecessor } from '../batch.ts'
import { chainFromBytes, chainStart, chainToBytes } from '../chain.ts'
import { laneNumber, lanes } from '../reading.ts'
import type { CborReader } from './cbor-reader.ts'
import type { CborWriter } from './cbor-writer.ts'
import { invalid } from './failure.ts'
import { maxTimeMs } from './times.ts'

/** Keys of the header's map. */
const key = {
  agent: 0,
  incarnation: 1,
  lane: 2,
  first: 3,
  last: 4,
  before: 5,
  after: 6,
  boot: 7,
  sentMs: 8,
  predecessor: 9,
  ledger: 10,
} as const
const required = (1 << key.predecessor) - 1
const idBytes = 16
const maxLedgerWords = 64

export function writeHeader(writer: CborWriter, header: BatchHeader): void {
  const { predecessor, ledger } = header
  writer.map(9 + (predecessor ? 1 : 0) + (ledger ? 1 : 0))
  writer.int(key.agent)
  writer.text(header.agent)
  writer.int(key.incarnation)
  writer.bytes(header.incarnation)
  writer.int(key.lane)
  writer.int(laneNumber[header.lane])
  writer.int(key.first)
  writer.int(header.first)
  writer.int(key.last)
  writer.int(header.last)
  writer.int(key.before)
  writer.bytes(chainToBytes(header.before))
  writer.int(key.after)
  writer.bytes(chainToBytes(header.after))
  writer.int(key.boot)
  writer.bytes(header.boot)
  writer.int(key.sentMs)
  writer.int(header.sentMs)
  if (predecessor) {
    writer.int(key.predecessor)
    writer.array(1 + lanes.length)
    writer.bytes(predecessor.incarnation)
    for (const lane of lanes) writer.int(predecessor.last[lane])
  }
  if (ledger) {
    writer.int(key.ledger)
    writer.textMap(ledger)
  }
}

/** @throws WireFailure unless every member is there and 1 ≤ first ≤ last */
export function readHeader(reader: CborReader): BatchHeader {
  const header: BatchHeader = {
    agent: '',
    incarnation: new Uint8Array(0),
    lane: 'bulk',
    first: 0,
    last: 0,
    before: chainStart,
    after: chainStart,
    predecessor: undefined,
    boot: new Uint8Array(0),
    sentMs: 0,
    ledger: undefined,
  }
  const seen = reader.fields('header', key.ledger, (field) => {
    switch (field) {
      case key.agent:
        header.agent = reader.text('agent')
        break
      case key.incarnation:
        header.incarnation = reader.bytes('incarnation', idBytes).slice()
        break
      case key.lane:
        header.lane = lanes[reader.int('lane', 0, lanes.length - 1)]!
        break
      case key.first:
        header.first = sequence(reader, 'first', 1)
        break
      case key.last:
        header.last = sequence(reader, 'last', 1)
        break
      case key.before:
        header.before = chainFromBytes(reader.bytes('before', 8))
        break
      case key.after:
        header.after = chainFromBytes(reader.bytes('after', 8))
        break
      case key.boot:
        header.boot = reader.bytes('boot', idBytes).slice()
        break
      case key.sentMs:
        header.sentMs = reader.int('sentMs', -maxTimeMs, maxTimeMs)
        break
      case key.predecessor:
        header.predecessor = readPredecessor(reader)
        break
      default:
        header.ledger = readLedger(reader)
    }
  })
  if ((seen & required) !== required) throw invalid('header: a member is missing')
  if (header.agent === '') throw invalid('agent: empty')
  if (header.last < header.first) throw invalid('header: last before first')
  return header
}

function readPredecessor(reader: CborReader): Predecessor {
  reader.array('predecessor', 1 + lanes.length, 1 + lanes.length)
  const incarnation = reader.bytes('predecessor', idBytes).slice()
  const last = Object.fromEntries(lanes.map((lane) => [lane, sequence(reader, lane, 0)]))
  return { incarnation, last: last as Predecessor['last'] }
}

function readLedger(reader: CborReader): Record<string, number> {
  const size = reader.map('ledger', maxLedgerWords)
  const ledger = new Map<string, number>()
  for (let i = 0; i < size; i++) {
    const word = reader.text('ledger word')
    if (ledger.has(word)) throw invalid(`ledger: "${word}" twice`)
    ledger.set(word, reader.int('ledger', -Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER))
  }
  return Object.fromEntries(ledger)
}

function sequence(reader: CborReader, what: string, min: number): number {
  return reader.int(what, min, Number.MAX_SAFE_INTEGER)
}
