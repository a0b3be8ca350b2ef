import type { moved, Note, Notes } from '../notes.ts'
import type { NatsLink } from './link.ts'
import { noteName, type Subjects } from './subject.ts'

/**
 * Notes in a stream of their own: a subject has one, its last message, whose sequence is the revision. One
 * that was removed is an empty message.
 */
export class NatsNotes implements Notes {
  readonly isShared = true
  readonly #link: NatsLink
  readonly #subjects: Subjects
  readonly #stream: string

  constructor(link: NatsLink, subjects: Subjects) {
    this.#link = link
    this.#subjects = subjects
    this.#stream = subjects.notes.stream
  }

  async read(name: string): Promise<Note> {
    const message = await this.#link.last(this.#stream, this.#subjects.note(name))
    if (!message) return { text: undefined, revision: 0 }
    const { body, sequence } = message
    return {
      text: body.length > 0 ? new TextDecoder().decode(body) : undefined,
      revision: sequence,
    }
  }

  write(name: string, text = '', expected: number): Promise<number | typeof moved> {
    const body = new TextEncoder().encode(text)
    return this.#link.publish(this.#subjects.note(name), body, {}, expected)
  }

  /** The replica that tells may be behind: it is read until it gives what was the last. */
  async list(prefix: string): Promise<string[]> {
    const { messages, lastSequence } = await this.#link.facts(this.#stream)
    const found = new Set<string>()
    if (messages === 0) return []
    for await (const { subject, body, sequence } of this.#link.scan(this.#stream, {
      lastPerSubject: true,
    })) {
      const name = noteName(subject)
      if (body.length > 0 && name.startsWith(prefix)) found.add(name)
      else found.delete(name)
      if (sequence >= lastSequence) break
    }
    return [...found]
  }
}
