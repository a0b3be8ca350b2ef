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
