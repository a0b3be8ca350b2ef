import { CodedFailure } from '../../shared/failure.ts'

export const outboxFailures = {
  OUTBOX_OPEN_FAILED: { retry: true, meaning: 'the outbox could not be opened' },
  OUTBOX_WRITE_FAILED: { retry: true, meaning: 'the outbox could not be written' },
  OUTBOX_READ_FAILED: { retry: true, meaning: 'the outbox could not be read' },
} as const
export type OutboxFailureCode = keyof typeof outboxFailures

/** The store failed. Whoever holds it closes it and opens it anew; what was not acknowledged comes again. */
export class OutboxFailure extends CodedFailure<OutboxFailureCode> {
  constructor(code: OutboxFailureCode, detail: string, options?: { cause?: unknown }) {
    super(outboxFailures, code, detail, options)
  }

  /** Something on the way down said that the disk is full. */
  get diskFull(): boolean {
    return this.#says(/ENOSPC|No space left on device/)
  }

  /** LevelDB found its own files damaged. */
  get corrupt(): boolean {
    return this.#says(/LEVEL_CORRUPTION|Corruption|CURRENT file|does not exist|not an sstable/i)
  }

  #says(pattern: RegExp): boolean {
    for (let error: unknown = this; error instanceof Error; error = error.cause)
      if (pattern.test(`${(error as { code?: string }).code} ${error.message}`)) return true
    return false
  }
}
