import { createHash, type KeyObject } from 'node:crypto'
import { z } from 'zod'
import type { Problem } from '../../shared/config.ts'
import type { Document } from '../../shared/fleet/envelope.ts'
import { reportStates } from '../../shared/fleet/reports.ts'
import type { Disk } from '../../shared/ports.ts'
import { healthSchema } from './health.ts'
import { readWhole, writeWhole } from './whole-file.ts'

const version = z.int().min(0)

const stateSchema = z.object({
  /** Digest of the key that all of it was signed with, as hex; not in what older agents wrote. */
  key: z.string().optional(),
  /** The highest version that was ever accepted: nothing at or below it is taken again. */
  accepted: version,
  /** Of the document of `accepted`, as hex. */
  digest: z.string(),
  /** What runs, and what is gone back to; 0 is the configuration file. */
  running: version,
  good: version,
  /** Wall clock, ms. */
  sinceMs: z.number(),
  /** What became of the newest version that was accepted. */
  outcome: z.object({
    desired: version.nullable(),
    state: z.enum(reportStates),
    problems: z.array(z.object({ path: z.string(), message: z.string() })),
  }),
  /** While what runs is being watched. */
  probation: z
    .object({
      before: healthSchema,
      /** When the process started with it and did not end in order, wall clock, ms. */
      starts: z.array(z.number()),
    })
    .optional(),
  paused: z.boolean(),
})
export type FleetState = z.output<typeof stateSchema>

const fresh: FleetState = {
  accepted: 0,
  digest: '',
  running: 0,
  good: 0,
  sinceMs: 0,
  outcome: { desired: 0, state: 'none', problems: [] },
  paused: false,
}

const directory = 'fleet'
const stateFile = 'state.json'
const documentName = /^document-(\d{1,16})\.json$/

/**
 * What an agent remembers of its configurations, over crashes and power cuts: every change is one file that
 * takes another's place. A document is there before the state that names it, and goes after it. It holds for
 * one signing key: a new fleet counts its versions from 1, and nothing of the one before may run in it.
 */
export class Vault {
  readonly #disk: Disk
  readonly #documents: Map<number, Document>
  #state: FleetState
  #writing: Promise<void> = Promise.resolve()
  /** What was found damaged when it was opened. */
  readonly damage: readonly Problem[]

  private constructor(
    disk: Disk,
    state: FleetState,
    documents: Map<number, Document>,
    damage: Problem[],
  ) {
    this.#disk = disk
    this.#state = state
    this.#documents = documents
    this.damage = damage
  }

  static async open(disk: Disk, configKey: KeyObject, nowMs: number): Promise<Vault> {
    const key = fingerprint(configKey)
    await disk.makeDirectory(directory)
    const names = await disk.list(directory)
    const documents = new Map<number, Document>()
    let highest = 0
    for (const name of names) {
      const [, digits] = documentName.exec(name) ?? []
      if (digits === undefined) continue
      highest = Math.max(highest, Number(digits))
      const content = await readWhole(disk, `${directory}/${name}`)
      if (isDocument(content)) documents.set(Number(digits), content)
    }
    const read = stateSchema.safeParse(await readWhole(disk, `${directory}/${stateFile}`))
    const first = { ...fresh, key, sinceMs: nowMs }
    if (read.success) {
      const isOurs = read.data.key === undefined || read.data.key === key
      return new Vault(disk, isOurs ? { ...read.data, key } : first, documents, [])
    }
    if (!names.includes(stateFile) && highest === 0) return new Vault(disk, first, documents, [])
    // Never below what was accepted once, as far as that can still be told.
    const state = { ...first, accepted: highest }
    const message = 'what was remembered of configurations is damaged: the configuration file runs'
    return new Vault(disk, state, documents, [{ path: '', message }])
  }

  get state(): Readonly<FleetState> {
    return this.#state
  }

  /** A document that the state names; undefined where it is damaged. */
  document(version: number): Document | undefined {
    return this.#documents.get(version)
  }

  /** Takes a new document in with the state that names it: after a power cut both are there, or neither. */
  async accept(document: Document, changes: Partial<FleetState> & { accepted: number }) {
    await writeWhole(this.#disk, directory, `document-${changes.accepted}.json`, document)
    this.#documents.set(changes.accepted, document)
    await this.change({ ...changes, digest: digestOf(document) })
  }

  /** Whether it is the document that was accepted last. */
  isAccepted(document: Document): boolean {
    return digestOf(document) === this.#state.digest
  }

  change(changes: Partial<FleetState>): Promise<void> {
    const done = this.#writing.then(() => this.#write(changes))
    this.#writing = done.catch(() => {})
    return done
  }

  async #write(changes: Partial<FleetState>): Promise<void> {
    const state = { ...this.#state, ...changes }
    await writeWhole(this.#disk, directory, stateFile, state)
    this.#state = state
    for (const version of this.#documents.keys())
      if (version !== state.running && version !== state.good && version !== state.accepted) {
        this.#documents.delete(version)
        await this.#disk.remove(`${directory}/document-${version}.json`)
      }
  }
}

function isDocument(content: unknown): content is Document {
  return typeof content === 'object' && content !== null && !Array.isArray(content)
}

function fingerprint(key: KeyObject): string {
  return createHash('sha256')
    .update(key.export({ type: 'spki', format: 'der' }))
    .digest('hex')
}

function digestOf(document: Document): string {
  return createHash('sha256').update(JSON.stringify(document)).digest('hex')
}
