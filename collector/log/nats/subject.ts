import crc32c from 'crc-32/crc32c.js'
import type { Lane } from '../../../shared/reading.ts'

/**
 * Where messages go: `<log>.<partition>.<agent>.<lane>` has the batches of one lane, one message each, and
 * `<log>.<partition>.<agent>.<lane>.<incarnation>` what is held of an incarnation that no longer fits into
 * the lane's headers.
 */
export class Subjects {
  readonly #log: string
  readonly #partitions: number

  constructor(log: string, partitions: number) {
    this.#log = log
    this.#partitions = partitions
  }

  partitionOf(agent: string): number {
    return (crc32c.str(agent, 0) >>> 0) % this.#partitions
  }

  /** The stream of a partition. */
  stream(partition: number): string {
    return `${this.#log}-${partition}`
  }

  /** All that a partition's stream takes. */
  all(partition: number): string {
    return `${this.#log}.${partition}.>`
  }

  lane(agent: string, lane: Lane): string {
    return `${this.#log}.${this.partitionOf(agent)}.${tokenOf(agent)}.${lane}`
  }

  /** The stream of the notes, and all that it takes. */
  get notes(): { stream: string; all: string } {
    return { stream: `${this.#log}-notes`, all: `${this.#log}.notes.>` }
  }

  /** `<log>.notes.<part>.<part>` has a note, and nothing else. */
  note(name: string): string {
    return `${this.#log}.notes.${name.split('/').map(tokenOf).join('.')}`
  }
}

/** Of a lane's subject; the messages are no batches but rows of what is held. */
export function incarnationSubject(laneSubject: string, incarnation: Uint8Array): string {
  return `${laneSubject}.${Buffer.from(incarnation).toString('hex')}`
}

export function isIncarnationSubject(subject: string): boolean {
  return subject.split('.').length > 4
}

/** The name of the note that a subject has. */
export function noteName(subject: string): string {
  return subject.split('.').slice(2).map(textOfToken).join('/')
}

function textOfToken(token: string): string {
  return decodeURIComponent(token.replaceAll('=', '%'))
}

/** A name as one token: letters, digits, `-` and `_` stay, other bytes become `=2E`. */
function tokenOf(name: string): string {
  let token = ''
  for (const byte of new TextEncoder().encode(name)) {
    const character = String.fromCharCode(byte)
    token += /[\w-]/.test(character)
      ? character
      : `=${byte.toString(16).toUpperCase().padStart(2, '0')}`
  }
  return token
}
