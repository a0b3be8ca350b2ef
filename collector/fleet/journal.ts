import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { dirname } from 'node:path'
import { Readable } from 'node:stream'

/** What happened, as the journal's reader gets it. */
export interface Entry<Fact> {
  /** Counts from 1. */
  n: number
  /** ISO 8601, the collector's clock. */
  at: string
  /** The common name of whoever did it; `collector` where nobody was asked. */
  by: string
  fact: Fact
}

/** The chain before the first entry. */
export const genesis = '0'.repeat(64)

/** A place behind an entry of a journal. */
export interface Place {
  /** Of that entry; 0 before the first. */
  n: number
  /** Hash of its line. */
  head: string
  /** Bytes up to there. */
  offset: number
}
const beginning: Place = { n: 0, head: genesis, offset: 0 }

/** Where the first entry is that does not fit on the one before it. */
export interface ChainBreak {
  line: number
  message: string
}

/**
 * An append-only file that says who did what when, and of which the fleet's state is the sum.
 *
 * One JSON document a line: `{n, at, by, fact, prev}`, where `prev` is the SHA-256 of the line before as
 * it stands (without its end). So nobody changes, drops or inserts a line without changing all behind it,
 * and the hash of the last line stands for the whole.
 */
export class Journal<Fact> implements AsyncDisposable {
  readonly #file: FileHandle
  readonly #path: string
  readonly #nowMs: () => number
  /** Behind what was appended last, which may still wait for the disk. */
  #end: Place
  /** Bytes that are durable. */
  #offset: number
  #waiting: { line: Buffer; done: () => void; failed: (error: unknown) => void }[] = []
  #writing: Promise<void> | undefined
  #failure: unknown

  /**
   * @param replay gets each entry that is there, in order
   * @param from what lies before is neither read nor checked
   * @throws JournalBroken where a line does not fit on the one before it; a torn last line is cut off,
   *   for nobody was told that it is there
   */
  static async open<Fact>(
    path: string,
    nowMs: () => number,
    replay: (entry: Entry<Fact>) => void,
    from = beginning,
  ): Promise<Journal<Fact>> {
    const file = await open(path, 'a+', 0o600)
    try {
      const check = new ChainCheck<Fact>(from)
      const { size } = await file.stat()
      let { offset } = from
      if (size < offset) throw new JournalBroken(path, { line: from.n, message: 'is not there' })
      for await (const line of wholeLines(readFrom(path, size, offset))) {
        const read = check.next(line)
        if ('message' in read) throw new JournalBroken(path, read)
        replay(read)
        offset += Buffer.byteLength(line) + 1
      }
      await file.truncate(offset)
      await file.sync()
      await syncFolder(dirname(path))
      return new Journal(file, path, nowMs, { n: check.n, head: check.head, offset })
    } catch (error) {
      await file.close()
      throw error
    }
  }

  private constructor(file: FileHandle, path: string, nowMs: () => number, end: Place) {
    this.#file = file
    this.#path = path
    this.#nowMs = nowMs
    this.#end = end
    this.#offset = end.offset
  }

  get length(): number {
    return this.#end.n
  }

  /** Behind its last entry; the hash there stands for all that is in it. */
  get end(): Place {
    return this.#end
  }

  /**
   * Puts an entry at the end; what waits for the disk together is synced together.
   *
   * @returns the entry, and what resolves once it survives a power cut
   * @throws after a failed write: what is on the disk is then unknown until the next start
   */
  append(by: string, fact: Fact): { entry: Entry<Fact>; durable: Promise<void> } {
    if (this.#failure) throw this.#failure
    const { n: before, head, offset } = this.#end
    const entry = { n: before + 1, at: new Date(this.#nowMs()).toISOString(), by, fact }
    const text = JSON.stringify({ ...entry, prev: head })
    const line = Buffer.from(`${text}\n`)
    this.#end = { n: entry.n, head: hashLine(text), offset: offset + line.length }
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    this.#waiting.push({ line, done: resolve, failed: reject })
    this.#writing ??= this.#write()
    return { entry, durable: promise }
  }

  async #write(): Promise<void> {
    await null // Whoever appends in the same turn goes along.
    while (this.#waiting.length > 0) {
      const group = this.#waiting
      this.#waiting = []
      try {
        if (this.#failure) throw this.#failure
        const bytes = Buffer.concat(group.map(({ line }) => line))
        await this.#file.appendFile(bytes)
        await this.#file.datasync()
        this.#offset += bytes.length
        for (const { done } of group) done()
      } catch (error) {
        this.#failure = error
        for (const { failed } of group) failed(error)
      }
    }
    this.#writing = undefined
  }

  /** The lines as they stand on the disk by now. */
  async lines(): Promise<Readable> {
    await this.#writing
    return readFrom(this.#path, this.#offset)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writing
    await this.#file.close()
  }
}

/** Reads a journal's lines one by one and says where they stop fitting. */
export class ChainCheck<Fact> {
  n: number
  head: string

  constructor({ n, head }: Place = beginning) {
    this.n = n
    this.head = head
  }

  next(line: string): Entry<Fact> | ChainBreak {
    const at = this.n + 1
    let read: Entry<Fact> & { prev?: unknown }
    try {
      read = JSON.parse(line)
    } catch {
      return { line: at, message: 'is no JSON' }
    }
    if (read?.n !== at) return { line: at, message: `is entry ${read?.n}, expected ${at}` }
    if (read.prev !== this.head)
      return { line: at, message: 'does not name the hash of the line before it' }
    this.n = at
    this.head = hashLine(line)
    const { n, by, fact } = read
    return { n, at: read.at, by, fact }
  }
}

/** A journal that somebody, or the disk, has changed. */
export class JournalBroken extends Error {
  constructor(path: string, { line, message }: ChainBreak) {
    super(`${path}: line ${line} ${message}`)
    this.name = 'JournalBroken'
  }
}

function hashLine(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

/**
 * Lines that end, by \n alone: what agents say may hold what others take for a line's end.
 *
 * @param torn gets what stands behind the last of them
 */
export async function* wholeLines(
  stream: Readable,
  torn: (rest: string) => void = () => {},
): AsyncIterable<string> {
  let rest = ''
  for await (const chunk of stream.setEncoding('utf8')) {
    const lines = (rest + chunk).split('\n')
    rest = lines.pop()!
    yield* lines
  }
  if (rest !== '') torn(rest)
}

/** The bytes of a file from `start` up to `end`. */
function readFrom(path: string, end: number, start = 0): Readable {
  return end === start ? Readable.from([]) : createReadStream(path, { start, end: end - 1 })
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
