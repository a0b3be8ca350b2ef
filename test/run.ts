// Runs one suite with Node's test runner: `node test/run.ts <suite> [--full] [file …]`.
// `--full` takes as long as it takes: more kills, more power cuts.
import { spawnSync } from 'node:child_process'
import { globSync } from 'node:fs'

const suites: Record<string, { folders: string[]; options?: string[] }> = {
  unit: { folders: ['agent', 'collector', 'shared', 'firmware-sim', 'world'] },
  // Every log engine, with the real servers: they fill both cores, so one file after the other.
  contract: { folders: ['contract'], options: ['--test-concurrency=1'] },
  // One after the other: they measure time, and several of them fill both cores.
  process: { folders: ['process'], options: ['--test-concurrency=1'] },
  // What the log is written to, with the real servers.
  sinks: { folders: ['sinks'], options: ['--test-concurrency=1'] },
  // A whole fleet, from `init` to `audit verify`, typed as a user types it.
  fleet: { folders: ['fleet'], options: ['--test-concurrency=1'] },
  // What `npm run package` has made; it measures memory and time too.
  package: { folders: ['package'], options: ['--test-concurrency=1'] },
}
const args = process.argv.slice(2)
const full = args.includes('--full')
const [name = 'unit', ...named] = args.filter((arg) => arg !== '--full')
const suite = suites[name]
if (!suite) {
  process.stderr.write(`no suite "${name}": one of ${Object.keys(suites).join(', ')}\n`)
  process.exit(2)
}
const files =
  named.length > 0
    ? named
    : suite.folders.flatMap((folder) => globSync(`test/${folder}/**/*.test.ts`)).sort()
const { status } = spawnSync(
  process.execPath,
  [
    '--test',
    `--test-timeout=${full ? 3_600_000 : 300_000}`,
    '--test-reporter=spec',
    ...(suite.options ?? []),
    ...files,
  ],
  { stdio: 'inherit', env: { ...process.env, ...(full && { HEADGATE_FULL: '1' }) } },
)
process.exit(status ?? 1)
