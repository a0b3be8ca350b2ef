import { kafka } from './kafka.ts'
import { lineProtocol } from './line-protocol.ts'
import { mqtt } from './mqtt.ts'
import { nats } from './nats.ts'
import { parquet } from './parquet.ts'
import { postgres } from './postgres.ts'
import type { SinkKind } from './sink.ts'
import { webhook } from './webhook.ts'

/** Outputs by the key that names them in `sinks:` of collector.yaml; one folder or file each. */
export const sinkKinds: Readonly<Record<string, SinkKind>> = {
  kafka,
  lineProtocol,
  mqtt,
  nats,
  parquet,
  postgres,
  webhook,
} as Record<string, SinkKind>
