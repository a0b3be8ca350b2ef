import { CodedFailure } from '../failure.ts'

export const clientFailures = {
  CLIENT_UNREACHABLE: { retry: true, meaning: 'the collector cannot be reached' },
  CLIENT_BUSY: { retry: true, meaning: 'the collector answered that it cannot now' },
  CLIENT_REFUSED: { retry: false, meaning: 'the collector refuses the request' },
  CLIENT_FOREIGN: {
    retry: false,
    meaning: 'what answers is no collector of a version that is known',
  },
} as const
export type ClientFailureCode = keyof typeof clientFailures

export class ClientFailure extends CodedFailure<ClientFailureCode> {
  /** The message without the code's meaning. */
  readonly detail: string
  /** Of the answer; undefined when there was none. */
  readonly status: number | undefined
  /** What the collector said, where it said it in JSON. */
  readonly answer: Readonly<Record<string, unknown>>

  constructor(
    code: ClientFailureCode,
    detail: string,
    { status, answer = {}, cause }: { status?: number; answer?: object; cause?: unknown } = {},
  ) {
    super(clientFailures, code, detail, { cause })
    this.name = 'ClientFailure'
    this.detail = detail
    this.status = status
    this.answer = answer as Record<string, unknown>
  }
}
