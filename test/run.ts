// Runs one suite with Node's test runner: `node test/run.ts <suite> [file …]`.
import { spawnSync } from 'node:child_process'
import { globSync } from 'node:fs'

const suites: Record<string, string[]> = {
  unit: ['agent', 'collector', 'shared', 'firmware-sim', 'contract'],
  process: ['process'],
}
const [suite = 'unit', ...named] = process.argv.slice(2)
const folders = suites[suite]
if (!folders) {
  process.stderr.write(`no suite "${suite}": one of ${Object.keys(suites).join(', ')}\n`)
  process.exit(2)
}
const files =
  named.length > 0
    ? named
    : folders.flatMap((folder) => globSync(`test/${folder}/**/*.test.ts`)).sort()
const { status } = spawnSync(
  process.execPath,
  ['--test', '--test-timeout=300000', '--test-reporter=spec', ...files],
  { stdio: 'inherit' },
)
process.exit(status ?? 1)
