import { postgres } from './postgres.ts'
import type { SinkKind } from './sink.ts'

/** Outputs by the key that names them in `sinks:` of collector.yaml; one folder or file each. */
export const sinkKinds: Readonly<Record<string, SinkKind>> = { postgres } as Record<
  string,
  SinkKind
>
