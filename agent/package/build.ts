// `npm run package`: the agent as one file and as a Debian package, for each machine, into `dist/`.
import { join } from 'node:path'
import { root } from '../../shared/package/paths.ts'
import { packageProgram } from '../../shared/package/program.ts'
import { slimSubstitutes } from '../../shared/package/substitutes.ts'
import { v8Flags } from './v8-flags.ts'

const folder = join(root, 'agent/package')
const slim = join(root, 'shared/package/slim')
const prebuilds = join(root, 'node_modules/classic-level/prebuilds')

await packageProgram({
  name: 'headgate-agent',
  part: 'agent',
  summary: 'brings sensor readings from MQTT to a Headgate collector',
  description: `
The agent runs on a gateway. It takes readings from an MQTT broker, keeps
them on disk from the moment it acknowledges them, and forwards them in
batches over HTTP, over any number of outages, restarts and power cuts.

For 64-bit x86 and ARM. Not for 32-bit ARM, for which there is no official
current Node.js.`,
  folder,
  documents: ['CONFIGURATION.md', 'FILTER.md', 'INSTALL.md', 'RELIABILITY.md'],
  substitutes: [
    ...slimSubstitutes,
    { module: 'undici/index.js', by: join(slim, 'undici.js') },
    { module: 'readable-stream/lib/ours/index.js', by: join(slim, 'readable-stream.cjs') },
    { module: 'classic-level/index.js', by: join(folder, 'classic-level.ts') },
    { module: 'classic-level/binding.js', by: join(folder, 'binding.cjs') },
  ],
  // The inspector's signal would open a debugger to whoever may send one. The system's authorities count
  // beside the built-in ones, so that update-ca-certificates has its effect.
  execArgv: ['--disable-sigusr1', '--use-system-ca', ...v8Flags],
  addons: ({ arch }) => ({
    'classic-level.node': join(
      prebuilds,
      arch === 'arm64' ? 'linux-arm64/classic-level.armv8.node' : 'linux-x64/classic-level.node',
    ),
  }),
})
