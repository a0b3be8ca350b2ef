/** A table of coded failures: what the world can do to a stage, and whether trying again can help. */
export type FailureTable = Readonly<Record<string, { retry: boolean; meaning: string }>>

/** Something the world did. Callers branch on `code`, never on the message. */
export class CodedFailure<Code extends string = string> extends Error {
  readonly code: Code
  readonly retry: boolean

  constructor(
    table: Readonly<Record<Code, { retry: boolean; meaning: string }>>,
    code: Code,
    detail: string,
    options?: { cause?: unknown },
  ) {
    super(`${table[code].meaning}: ${detail}`, options)
    this.name = 'Failure'
    this.code = code
    this.retry = table[code].retry
  }
}

/** Ends a command with one line that says what is wrong and what to do about it, exit code 1. */
export class UserError extends Error {
  /** 2 for a wrong call of the command, 1 for everything else. */
  readonly exitCode: number

  constructor(message: string, options: { exitCode?: number; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'UserError'
    this.exitCode = options.exitCode ?? 1
  }
}
