import { readFile, rename, writeFile } from 'node:fs/promises'
import { BoundedMap } from '../../shared/bounded-map.ts'
import {
  type AgentReport,
  type CommandResult,
  type Reported,
  readReport,
  reportedSchema,
  resultSchema,
  statusSchema,
} from '../../shared/fleet/reports.ts'
import { parseFleetTopic } from '../../shared/fleet/topics.ts'

/** The last that was heard of an agent, in its own words. */
export interface Heard {
  reported?: Reported
  status?: AgentReport
  /** Collector's wall time of the last word, ms. */
  atMs: number
}

/** Something heard, for whoever watches. */
export type News =
  | { kind: 'reported'; agent: string; reported: Reported }
  | { kind: 'status'; agent: string; status: AgentReport }
  | { kind: 'result'; agent: string; result: CommandResult }
  | { kind: 'fleet'; what: object }

/** Results of commands that are kept for whoever asks. */
const maxResults = 1_000

/** What agents say of themselves. It may all be lost: agents say it again when they come back. */
export class Reports {
  readonly heard = new Map<string, Heard>()
  readonly results = new BoundedMap<string, CommandResult>(maxResults)
  readonly #listeners = new Set<(news: News) => void>()
  #changed = false

  /**
   * Takes a message from an agent.
   *
   * @returns undefined when it is nothing that an agent says, or not as it must be
   */
  take(topic: string, payload: Uint8Array, nowMs: number): News | undefined {
    const target = parseFleetTopic(topic)
    if (!target) return undefined
    const { agent } = target
    let news: News | undefined
    if (target.kind === 'reported') {
      const reported = plain(readReport(reportedSchema, payload))
      if (reported) {
        this.#of(agent, nowMs).reported = reported
        news = { kind: 'reported', agent, reported }
      }
    } else if (target.kind === 'status') {
      const status = plain(readReport(statusSchema, payload))
      if (status) {
        const heard = this.#of(agent, nowMs)
        // A last will says only that it is gone: what was known before stays of use.
        heard.status = status.online ? status : { ...heard.status, ...status }
        news = { kind: 'status', agent, status }
      }
    } else if (target.kind === 'result') {
      const result = plain(readReport(resultSchema, payload))
      if (result?.id === target.id) {
        this.results.set(`${agent} ${result.id}`, result)
        news = { kind: 'result', agent, result }
      }
    }
    if (news) this.tell(news)
    return news
  }

  forget(agent: string): void {
    this.heard.delete(agent)
    this.#changed = true
  }

  /** @returns ends it */
  listen(listener: (news: News) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  tell(news: News): void {
    for (const listener of this.#listeners) listener(news)
  }

  /** What was saved; nothing where it cannot be read, for it is only a convenience. */
  async load(path: string): Promise<void> {
    try {
      const saved = JSON.parse(await readFile(path, 'utf8')) as [string, Heard][]
      for (const [agent, heard] of saved) this.heard.set(agent, heard)
    } catch {
      // As if nothing had been heard yet.
    }
  }

  async save(path: string): Promise<void> {
    if (!this.#changed) return
    this.#changed = false
    await writeFile(`${path}.new`, JSON.stringify([...this.heard]), { mode: 0o600 })
    await rename(`${path}.new`, path)
  }

  #of(agent: string, nowMs: number): Heard {
    let heard = this.heard.get(agent)
    if (!heard) {
      heard = { atMs: nowMs }
      this.heard.set(agent, heard)
    }
    heard.atMs = nowMs
    this.#changed = true
    return heard
  }
}

/** Without control characters: managers have it printed, and some of them steer a terminal. */
function plain<What>(said: What): What {
  if (typeof said === 'string') return said.replace(/\p{Cc}+/gu, ' ') as What
  if (Array.isArray(said)) return said.map(plain) as What
  if (typeof said !== 'object' || said === null) return said
  const entries = Object.entries(said).map(([key, what]) => [plain(key), plain(what)])
  return Object.fromEntries(entries) as What
}
