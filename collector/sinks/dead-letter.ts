import type { Clock, Disk, DiskFile } from '../../shared/ports.ts'
import { formatTime } from '../../shared/time-text.ts'
import { formatRecords } from '../fanout/format.ts'
import type { Refusal } from './sink.ts'

const current = 'dead.ndjson'
const before = 'dead.before.ndjson'

/**
 * What an output will never take, one JSON document a line: when, why, and the record as `headgate log cat`
 * prints it. Two files of half the size each: when the newer is full it becomes the older, which goes. What
 * goes is still in the log, for as long as the log keeps it.
 */
export class DeadLetter {
  readonly #disk: Disk
  readonly #directory: string
  readonly #clock: Clock
  readonly #halfBytes: number
  #file: DiskFile | undefined
  #size = 0

  constructor(disk: Disk, directory: string, clock: Clock, maxBytes: number) {
    this.#disk = disk
    this.#directory = directory
    this.#clock = clock
    this.#halfBytes = Math.floor(maxBytes / 2)
  }

  /** Resolves once they are durable. */
  async add(refusals: readonly Refusal[]): Promise<void> {
    if (refusals.length === 0) return
    const at = formatTime(this.#clock.wallMs())
    let text = ''
    for (const { record, reason } of refusals)
      text += `{"at":"${at}","reason":${JSON.stringify(reason)},"record":${formatRecords([record], 'ndjson').trimEnd()}}\n`
    const bytes = Buffer.from(text)
    try {
      if (!this.#file) await this.#open()
      if (this.#size > 0 && this.#size + bytes.length > this.#halfBytes) await this.#turnOver()
      await this.#file!.write([bytes], this.#size)
      await this.#file!.sync()
      this.#size += bytes.length
    } catch (error) {
      // What a failed write has left is not known: it is looked at again when the file is opened.
      await this.close()
      throw error
    }
  }

  /** The lines that are there, oldest first. */
  async *lines(): AsyncGenerator<string> {
    for (const name of [before, current]) yield* this.#linesOf(name)
  }

  async close(): Promise<void> {
    const file = this.#file
    this.#file = undefined
    await file?.close().catch(() => {})
  }

  async #open(): Promise<void> {
    const exists = (await this.#disk.list(this.#directory)).includes(current)
    this.#file = await this.#disk.open(this.#path(current), exists ? 'write' : 'create')
    if (!exists) await this.#disk.syncDirectory(this.#directory)
    const size = await this.#file.size()
    // A crash may have left half a line.
    let end = size
    const chunk = 64 * 1024
    while (end > 0) {
      const from = Math.max(0, end - chunk)
      const newline = Buffer.from(await this.#file.read(from, end - from)).lastIndexOf(10)
      if (newline >= 0) {
        end = from + newline + 1
        break
      }
      end = from
    }
    if (end < size) await this.#file.truncate(end)
    this.#size = end
  }

  async #turnOver(): Promise<void> {
    await this.close()
    await this.#disk.rename(this.#path(current), this.#path(before))
    await this.#open()
  }

  #path(name: string): string {
    return `${this.#directory}/${name}`
  }

  async *#linesOf(name: string): AsyncGenerator<string> {
    if (!(await this.#disk.list(this.#directory)).includes(name)) return
    const file = await this.#disk.open(this.#path(name), 'read')
    try {
      let rest = Buffer.alloc(0)
      let at = 0
      for (;;) {
        const bytes = await file.read(at, 64 * 1024)
        if (bytes.length === 0) return
        at += bytes.length
        rest = Buffer.concat([rest, bytes])
        let start = 0
        for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10, start)) {
          yield rest.toString('utf8', start, end)
          start = end + 1
        }
        rest = rest.subarray(start)
      }
    } finally {
      await file.close()
    }
  }
}
