// How fast everything is. Each bench is a program of its own, test/bench/<name>.ts, that prints its figures.
// docs/PERFORMANCE.md says what they are.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import type { Figure } from './harness/figure.ts'

/** Run where none is named: agent and collector, in less than 25 minutes. */
const usual = [
  'receive',
  'commit',
  'wire',
  'ingest',
  'engines',
  'latency',
  'drain',
  'peers',
  'filter',
]
const benches = [...usual, 'read', 'gateway', 'fleet']
/** Those with figures that hold on any machine: bytes, and ratios of CPU times. */
const checked = ['wire', 'receive', 'commit', 'ingest']
/** What `--check` compares with, and how much worse it may be. */
const storedFile = fileURLToPath(new URL('./stored.json', import.meta.url))
const tolerance = 0.3

const { values: options, positionals } = given()
if (options.help) {
  process.stdout.write(`npm run bench -- [name …] [--all] [--json] [--rounds N] [--check [--store]]

names: ${benches.join(', ')}; without one ${usual.join(', ')}
  --all       all of them, in over half an hour
  --json      a list of {name, figure, unit, runs, holds}
  --rounds N  in place of 5
  --check     sizes and CPU ratios, in a short form, against the stored ones
  --store     stores them
`)
  process.exit(0)
}
if (options.rounds !== undefined && !/^[1-9]\d*$/.test(options.rounds)) {
  process.stderr.write('--rounds: expected a whole number from 1 on\n')
  process.exit(2)
}
const unknown = positionals.find((name) => !benches.includes(name))
if (unknown !== undefined) {
  process.stderr.write(`no bench "${unknown}": one of ${benches.join(', ')}\n`)
  process.exit(2)
}

const otherwise = options.check ? checked : options.all ? benches : usual
const names = positionals.length > 0 ? positionals : otherwise
const figures: Figure[] = []
let failed = false
for (const name of names) {
  const startedMs = performance.now()
  process.stderr.write(`── ${name}\n`)
  const found = await run(name)
  if (found) figures.push(...found)
  else failed = true
  process.stderr.write(`   ${((performance.now() - startedMs) / 1_000).toFixed(0)} s\n`)
}
if (options.json) process.stdout.write(`${JSON.stringify(figures, null, 2)}\n`)
else for (const line of table(figures)) process.stdout.write(`${line}\n`)
if (options.check) {
  if (options.store) store()
  else for (const problem of compare()) complain(problem)
} else for (const { name, holds } of figures) if (holds === false) complain(`${name} does not hold`)
process.exitCode = failed ? 1 : 0

function given() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        json: { type: 'boolean', default: false },
        check: { type: 'boolean', default: false },
        store: { type: 'boolean', default: false },
        rounds: { type: 'string' },
        all: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
      },
    })
  } catch (error) {
    process.stderr.write(`${(error as Error).message.split('. ')[0]}: see --help\n`)
    process.exit(2)
  }
}

function complain(problem: string): void {
  process.stderr.write(`${problem}\n`)
  failed = true
}

/** Undefined when the bench failed; it has said why. */
async function run(name: string): Promise<Figure[] | undefined> {
  const file = fileURLToPath(new URL(`./${name}.ts`, import.meta.url))
  const args = [...(options.check ? ['--short'] : [])]
  if (options.rounds !== undefined) args.push('--rounds', options.rounds)
  const child = spawn(process.execPath, [file, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  child.stdout.setEncoding('utf8').on('data', (piece: string) => {
    text += piece
  })
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.once(signal, () => child.kill(signal))
  await once(child, 'close')
  if (child.exitCode === 0) return JSON.parse(text) as Figure[]
  process.stderr.write(`${name} failed\n`)
  return undefined
}

function table(rows: readonly Figure[]): string[] {
  const width = Math.max(...rows.map(({ name }) => name.length))
  return rows.map(({ name, figure, unit, runs, holds, note }) => {
    const value = figure === null ? '—' : figure.toLocaleString('en', { maximumFractionDigits: 4 })
    const verdict = holds === null ? '' : holds ? 'holds' : 'DOES NOT HOLD'
    const tail = [runs > 0 ? `${runs} runs` : '', verdict, note ?? ''].filter((part) => part !== '')
    return `${name.padEnd(width)} ${value.padStart(12)} ${unit.padEnd(14)} ${tail.join(', ')}`
  })
}

function stored(): Record<string, number> {
  return JSON.parse(readFileSync(storedFile, 'utf8')) as Record<string, number>
}

/**
 * Every stored figure of the benches that ran must be there again and not be worse; all of them are the
 * better the smaller. One that has become much better is worth storing, and no failure.
 */
function compare(): string[] {
  const problems = []
  for (const [name, before] of Object.entries(stored())) {
    if (!names.includes(name.split('.')[0]!)) continue
    const now = figures.find((figure) => figure.name === name)?.figure
    if (now === undefined) problems.push(`${name}: stored as ${before}, not measured`)
    else if (now === null) process.stderr.write(`${name}: stored as ${before}, not measured here\n`)
    else if (now > before * (1 + tolerance))
      problems.push(
        `${name}: ${now} is ${Math.round((now / before - 1) * 100)} % more than the stored ${before}: ` +
          'find out why, or store it with --check --store',
      )
    else if (now < before * (1 - tolerance))
      process.stderr.write(
        `${name}: ${now} is much better than the stored ${before}: store it with --check --store\n`,
      )
  }
  return problems
}

/** Keeps what can be compared on another machine. */
function store(): void {
  const before = positionals.length > 0 ? stored() : {}
  const found = figures.flatMap(({ name, figure, unit }) =>
    figure !== null && unit === 'ratio' && isComparable(name) ? [[name, figure] as const] : [],
  )
  const all = Object.entries({ ...before, ...Object.fromEntries(found) }).sort()
  writeFileSync(storedFile, `${JSON.stringify(Object.fromEntries(all), null, 2)}\n`)
}

function isComparable(name: string): boolean {
  return /^wire\.(nab\.)?\d+$/.test(name) || /cpuRatio$/i.test(name)
}
