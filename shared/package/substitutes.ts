import { join } from 'node:path'
import type { Substitute } from './bundle.ts'
import { root } from './paths.ts'

const slim = join(root, 'shared/package/slim')

/** What every program leaves out of the libraries that it uses; each halves some memory that would lie idle. */
export const slimSubstitutes: readonly Substitute[] = [
  { module: 'zod/v4/locales/index.js', by: join(slim, 'zod-locales.js') },
  { module: 'thread-stream/index.js', by: join(slim, 'absent.cjs') },
  { module: '@opentelemetry/api/dist/index.cjs', by: join(slim, 'absent.cjs') },
]

const kafka = '@platformatic/kafka/dist'
const wasm = '@platformatic/wasm-utils/dist'

/** … and the collector: the Kafka client brings a registry's schemas, and reads its WebAssembly from a file. */
export const collectorSubstitutes: readonly Substitute[] = [
  ...slimSubstitutes,
  {
    module: `${kafka}/registries/confluent-schema-registry.js`,
    by: join(slim, 'absent.cjs'),
  },
  { module: `${wasm}/index.js`, by: join(root, 'node_modules', wasm, 'bundled.js') },
]
