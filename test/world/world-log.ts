import type { Logger } from '../../shared/log.ts'
import type { Trace } from './trace.ts'

/** The log lines of a world's programs go into its trace, where somebody reads it. */
export class WorldLog {
  readonly #trace: Trace

  constructor(trace: Trace) {
    this.#trace = trace
  }

  say(what: string, detail: string | number = ''): void {
    this.#trace.say(what, detail)
  }

  /** As much of a logger as the core uses. */
  logger(name: string): Logger {
    const line = (level: string) => (first: unknown, second?: unknown) => {
      // Hashed without its fields: they may hold errors, whose stacks are nobody's promise.
      const text = typeof first === 'string' ? first : String(second)
      const isRead = this.#trace.lines !== undefined
      const fields = isRead && typeof first === 'object' ? ` ${fieldsOf(first)}` : ''
      this.#trace.say(`${name} ${level}: ${text}`, '')
      if (fields) this.#trace.lines?.push(`                ${fields}`)
    }
    const [debug, info, warn, error] = ['debug', 'info', 'warn', 'error'].map(line)
    return { debug, info, warn, error } as unknown as Logger
  }
}

function fieldsOf(fields: unknown): string {
  return JSON.stringify(fields, (_, value: unknown) =>
    value instanceof Error
      ? value.stack
      : value instanceof Uint8Array
        ? Buffer.from(value).toString('hex')
        : value,
  )
}
