// The simulated world: `npm run world -- --help`.
import { parseArgs } from 'node:util'
import { Coverage } from './coverage.ts'
import { type History, runHistory, shrink } from './history.ts'
import { type Caught, hunt, type PlantedBug, plantedBugs } from './planted.ts'

const help = `npm run world -- [--seconds N | --histories N] [--from SEED] [--json]
npm run world -- --seed SEED [--only FAULT,…] [--trace]
npm run world -- --planted-bugs [--bug NAME] [--json]
`
/** In so many histories each planted bug must be caught. */
const plantedSeeds = 1_000

const { values } = parseArgs({
  options: {
    seconds: { type: 'string' },
    histories: { type: 'string' },
    from: { type: 'string', default: '1' },
    seed: { type: 'string' },
    only: { type: 'string' },
    bug: { type: 'string' },
    trace: { type: 'boolean', default: false },
    'planted-bugs': { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})

if (values.help) process.stdout.write(help)
else if (values['planted-bugs']) await plantBugs()
else if (values.seed !== undefined) await replay(Number(values.seed))
else await explore()

/** One history, to be read. */
async function replay(seed: number): Promise<void> {
  const only = values.only?.split(',').filter(Boolean).map(Number)
  const history = await runHistory(seed, { only, keepTrace: values.trace })
  for (const line of history.lines ?? []) process.stdout.write(`${line}\n`)
  process.stdout.write(`${history.events} events, ${history.hash}\n`)
  report(history)
  process.exitCode = history.violations.length > 0 ? 1 : 0
}

/** Each deliberate bug, until a history catches it. */
async function plantBugs(): Promise<void> {
  const results: { name: string; seed: number | null }[] = []
  for (const bug of plantedBugs) {
    if (values.bug !== undefined && bug.name !== values.bug) continue
    const caught = await firstCaught(bug)
    results.push({ name: bug.name, seed: caught?.seed ?? null })
    process.stderr.write(
      caught
        ? `${bug.name}: seed ${caught.seed}, ${caught.promise}: ${caught.text.split('\n')[0]}\n`
        : `${bug.name}: NOT CAUGHT\n`,
    )
  }
  if (values.json) process.stdout.write(`${JSON.stringify(results)}\n`)
  else console.table(results)
  process.exitCode = results.every(({ seed }) => seed !== null) ? 0 : 1
}

async function firstCaught(bug: PlantedBug): Promise<Caught | undefined> {
  for (let from = 1; ; ) {
    const caught = await hunt({ bug, from, to: plantedSeeds })
    // What shows without the bug does not count.
    if (!caught || (await runHistory(caught.seed)).violations.length === 0) return caught
    from = caught.seed + 1
  }
}

/** Seed after seed, for so long or so many. */
async function explore(): Promise<void> {
  const limitMs = Number(values.seconds ?? (values.histories ? Infinity : 30)) * 1000
  const limit = Number(values.histories ?? Infinity)
  const coverage = new Coverage()
  const events: number[] = []
  const faults: number[] = []
  const failed: History[] = []
  const began = performance.now()
  let seed = Number(values.from)
  while (events.length < limit && performance.now() - began < limitMs) {
    const history = await runHistory(seed++)
    events.push(history.events)
    faults.push(history.faults)
    coverage.add(history.coverage)
    if (history.violations.length === 0) continue
    failed.push(history)
    report(await shrink(history))
  }
  const minutes = (performance.now() - began) / 60_000
  const result = {
    histories: events.length,
    perMinute: Math.round(events.length / minutes),
    medianEvents: median(events),
    medianFaults: median(faults),
    violations: failed.length,
    coverage: coverage.times,
  }
  if (values.json) process.stdout.write(`${JSON.stringify(result)}\n`)
  else console.log(result)
  process.exitCode = failed.length > 0 ? 1 : 0
}

/** What was broken, and the command that breaks it again. */
function report({ seed, only, violations }: History): void {
  const [first] = violations
  if (!first) return
  const faults = only ? ` --only ${only.length > 0 ? only.join() : ','}` : ''
  process.stderr.write(`npm run world -- --seed ${seed}${faults} --trace\n`)
  process.stderr.write(`  ${first.promise}: ${first.text}\n`)
  if (violations.length > 1) process.stderr.write(`  and ${violations.length - 1} more\n`)
}

function median(numbers: readonly number[]): number {
  return [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? 0
}
