import { z } from 'zod'
import type { Logger } from '../../../shared/log.ts'
import type { Clock, Random } from '../../../shared/ports.ts'
import { moved, type Note, type Notes } from '../notes.ts'
import type { Cluster, NewRecord, Writer } from './cluster.ts'
import { elsewhere, type NotesAnswer, type NotesRequest } from './peers.ts'
import { Tenure } from './tenure.ts'

const name = z.string().min(1).max(1024)

const requestSchema: z.ZodType<NotesRequest> = z.discriminatedUnion('call', [
  z.strictObject({ call: z.literal('read'), name }),
  z.strictObject({
    call: z.literal('write'),
    name,
    text: z.string().optional(),
    expected: z.int().min(0),
    id: z.string(),
  }),
  z.strictObject({ call: z.literal('list'), prefix: z.string().max(1024) }),
])
type WriteRequest = Extract<NotesRequest, { call: 'write' }>

export interface NotebookOptions {
  cluster: Cluster
  clock: Clock
  logger: Logger
  topic: string
  isOurs(): Promise<boolean>
}

/** Headers of a record: the note's revision, and which write made it. */
const revisionHeader = 'Headgate-Revision'
const writeHeader = 'Headgate-Write'
/** Texts of one transaction, the last on top. */
const groupLength = 256 * 1024

interface Kept extends Note {
  /** The write that made it. */
  id: string
}

/**
 * All notes, at the collector that owns them: it has the transactional id of their topic, which is
 * compacted and has one partition; the note's name is the key. An empty record is of a note that was removed.
 */
export class Notebook {
  readonly tenure: Tenure<WriteRequest, NotesAnswer>
  readonly #options: NotebookOptions
  #notes = new Map<string, Kept>()
  /** Offset up to which they were read. */
  #readTo = 0

  constructor(options: NotebookOptions) {
    this.#options = options
    const duty = {
      takeOver: () => this.#takeOver(),
      sizeOfNext,
      commit: (writer: Writer, writes: readonly WriteRequest[]) => this.#commit(writer, writes),
      forget: () => {
        this.#notes = new Map()
        this.#readTo = 0
      },
    }
    this.tenure = new Tenure({ ...options, partition: 0, duty })
  }

  /** @returns elsewhere when this collector does not own the notes, or not yet */
  async answer(request: NotesRequest): Promise<NotesAnswer | typeof elsewhere> {
    if (request.call === 'write') return this.tenure.do(request)
    if (!this.tenure.isOpen) return elsewhere
    if (request.call === 'read') {
      const { text, revision } = this.#notes.get(request.name) ?? none
      return { text, revision }
    }
    const names = [...this.#notes]
      .filter(([name, { text }]) => text !== undefined && name.startsWith(request.prefix))
      .map(([name]) => name)
    return { names }
  }

  async #takeOver(): Promise<Writer> {
    const { cluster, topic } = this.#options
    const place = { topic, partition: 0 }
    const writer = await cluster.writer(`${topic}-0`)
    try {
      const { first, next } = await cluster.ends(place)
      const fromOffset = Math.max(first, this.#readTo)
      for await (const piece of cluster.read(place, { fromOffset, toOffset: next })) {
        for (const { key, value, header } of piece.records) {
          const text = value.length > 0 ? Buffer.from(value).toString('utf8') : undefined
          const revision = Number(header(revisionHeader))
          this.#notes.set(key, { text, revision, id: header(writeHeader) ?? '' })
        }
        this.#readTo = piece.next
      }
    } catch (error) {
      writer.close()
      throw error
    }
    return writer
  }

  async #commit(writer: Writer, writes: readonly WriteRequest[]): Promise<NotesAnswer[]> {
    const { topic, clock } = this.#options
    const changed = new Map<string, Kept>()
    const answers = writes.map(({ name, text, expected, id }) => {
      const { revision, id: last } = changed.get(name) ?? this.#notes.get(name) ?? none
      // Asked again, because the answer got lost.
      if (revision === expected + 1 && last === id) return { revision }
      if (revision !== expected) return {}
      changed.set(name, { text, revision: expected + 1, id })
      return { revision: expected + 1 }
    })
    const timeMs = clock.wallMs()
    const records = [...changed].map(
      ([key, { text = '', revision, id }]): NewRecord => ({
        topic,
        partition: 0,
        key,
        value: Buffer.from(text),
        headers: { [revisionHeader]: String(revision), [writeHeader]: id },
        timeMs,
      }),
    )
    if (records.length > 0) await writer.commit([{ topic, partition: 0 }], records)
    for (const [name, kept] of changed) this.#notes.set(name, kept)
    return answers
  }
}

const none: Kept = { text: undefined, revision: 0, id: '' }

function sizeOfNext(waiting: readonly WriteRequest[]): number {
  let length = 0
  let count = 0
  for (const { text = '' } of waiting) {
    count += 1
    length += text.length
    if (length > groupLength) break
  }
  return count
}

/** @throws when it is none */
export function parseRequest(request: unknown): NotesRequest {
  return requestSchema.parse(request)
}

/** Notes by whoever owns them. */
export class KafkaNotes implements Notes {
  readonly isShared = true
  readonly #random: Random
  readonly #ask: (request: NotesRequest) => Promise<NotesAnswer>

  /** @param ask finds the owner; it may ask more than once */
  constructor(random: Random, ask: (request: NotesRequest) => Promise<NotesAnswer>) {
    this.#random = random
    this.#ask = ask
  }

  async read(name: string): Promise<Note> {
    const { text, revision = 0 } = await this.#ask({ call: 'read', name })
    return { text, revision }
  }

  async write(
    name: string,
    text: string | undefined,
    expected: number,
  ): Promise<number | typeof moved> {
    const id = Buffer.from(this.#random.bytes(12)).toString('base64url')
    const { revision } = await this.#ask({ call: 'write', name, text, expected, id })
    return revision ?? moved
  }

  async list(prefix: string): Promise<string[]> {
    return (await this.#ask({ call: 'list', prefix })).names ?? []
  }
}
