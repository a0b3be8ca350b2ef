import { CodedFailure } from '../../shared/failure.ts'

export const sourceFailures = {
  SOURCE_UNREACHABLE: { retry: true, meaning: 'cannot reach the broker' },
  SOURCE_TLS: { retry: true, meaning: 'no trusted TLS connection to the broker' },
  SOURCE_FILE: { retry: true, meaning: 'cannot use a file that the source needs' },
  SOURCE_REFUSED: { retry: true, meaning: 'the broker refused the connection' },
  SOURCE_TIMEOUT: { retry: true, meaning: 'the broker does not answer' },
  SOURCE_LOST: { retry: true, meaning: 'lost the connection to the broker' },
  SOURCE_PROTOCOL: { retry: true, meaning: 'the broker broke the MQTT protocol' },
} as const
export type SourceFailureCode = keyof typeof sourceFailures

/** Why there is no connection. Its message says what, and where a person can help, what to do. */
export class SourceFailure extends CodedFailure<SourceFailureCode> {
  constructor(code: SourceFailureCode, detail: string, options?: { cause?: unknown }) {
    super(sourceFailures, code, detail, options)
  }
}

/** The broker sent what MQTT does not allow here. */
export function protocolFailure(detail: string): SourceFailure {
  return new SourceFailure('SOURCE_PROTOCOL', detail)
}
