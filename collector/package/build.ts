// `npm run package:collector`: the collector as one file and as a Debian package, for each machine, into `dist/`.
import { join } from 'node:path'
import { root } from '../../shared/package/paths.ts'
import { packageProgram } from '../../shared/package/program.ts'
import { collectorSubstitutes } from '../../shared/package/substitutes.ts'

await packageProgram({
  name: 'headgate-collector',
  part: 'collector',
  summary: 'takes sensor readings from Headgate agents into a stream log',
  description: `
The collector takes batches of readings over HTTP, answers for them once they
are durable, each once, and serves the log to any number of readers.

For 64-bit x86 and ARM.`,
  folder: join(root, 'collector/package'),
  documents: [
    'COLLECTOR.md',
    'CONFIGURATION.md',
    'FLEET.md',
    'FLEET-WIRE.md',
    'SECURITY.md',
    'SINKS.md',
    'WIRE.md',
  ],
  substitutes: collectorSubstitutes,
  execArgv: ['--disable-sigusr1', '--use-system-ca'],
  addons: () => ({}),
})
