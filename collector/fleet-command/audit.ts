import { once } from 'node:events'
import { open, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import type { Command } from 'commander'
import { UserError } from '../../shared/failure.ts'
import type { Fact } from '../fleet/facts.ts'
import { ChainCheck, type Entry, wholeLines } from '../fleet/journal.ts'
import { type FleetOptions, openApi, withFleet } from './options.ts'

/** What a manager has seen of the log: it cannot become shorter or another behind their back. */
interface Seen {
  n: number
  head: string
}

/** Adds `headgate fleet audit` and `headgate fleet audit verify`. */
export function registerAudit(command: Command): void {
  withFleet(command.command('audit'))
    .argument('[verify]', '`verify`: check the chain instead of printing it')
    .description('who did what when')
    .option('--json', 'print the lines as they stand')
    .option('--file <audit.jsonl>', 'a copy, instead of asking the collector')
    .addHelpText('after', '\nExamples:\n  headgate fleet audit\n  headgate fleet audit verify')
    .action(audit)
}

interface AuditOptions extends FleetOptions {
  json?: boolean
  file?: string
}

async function audit(what: string | undefined, options: AuditOptions): Promise<void> {
  if (what !== undefined && what !== 'verify')
    throw new UserError(`audit takes nothing or \`verify\`, not "${what}"`, { exitCode: 2 })
  if (what === 'verify')
    return read(options, (lines) =>
      verify(lines, join(options.fleet, 'manager', 'audit-seen.json')),
    )
  await read(options, async (lines) => {
    for await (const line of wholeLines(lines)) {
      const text = options.json ? line : describe(JSON.parse(line) as Entry<Fact>)
      if (!process.stdout.write(`${text}\n`)) await once(process.stdout, 'drain')
    }
  })
}

/** Reads what may be long: years of a large fleet. */
async function read(options: AuditOptions, use: (lines: Readable) => Promise<void>): Promise<void> {
  if (options.file !== undefined) {
    const file = await open(options.file).catch((cause) => {
      throw new UserError(`--file: ${options.file} cannot be read (${cause.code})`, { cause })
    })
    await using _ = file
    await use(file.createReadStream({ autoClose: false }))
    return
  }
  const { client } = await openApi(options)
  await using _ = client
  await use(await client.audit())
}

async function verify(journal: Readable, seenFile: string): Promise<void> {
  const seen = await readSeen(seenFile)
  const check = new ChainCheck<Fact>()
  const torn = () => {
    throw new UserError('the audit log ends in the middle of a line')
  }
  for await (const line of wholeLines(journal, torn)) {
    const read = check.next(line)
    if ('message' in read)
      throw new UserError(`the audit log was changed: line ${read.line} ${read.message}`)
    if (read.n === seen?.n && check.head !== seen.head)
      throw new UserError(
        `the audit log is another than the one seen before, up to entry ${seen.n}`,
      )
  }
  if (seen && check.n < seen.n)
    throw new UserError(
      `the audit log has lost entries: ${seen.n} were seen before, ${check.n} are there`,
    )
  await writeSeen(seenFile, { n: check.n, head: check.head })
  process.stdout.write(`${check.n} entries, each fits on the one before it; head ${check.head}\n`)
}

async function readSeen(file: string): Promise<Seen | undefined> {
  try {
    return JSON.parse(await readFile(file, 'utf8')) as Seen
  } catch {
    return undefined
  }
}

async function writeSeen(file: string, seen: Seen): Promise<void> {
  await writeFile(`${file}.new`, `${JSON.stringify(seen)}\n`, { mode: 0o600 })
  await rename(`${file}.new`, file)
}

function describe({ at, by, fact }: Entry<Fact>): string {
  const { act, ...rest } = fact
  const words = Object.entries(rest).map(([key, value]) => `${key}=${brief(value)}`)
  return `${at}  ${by.padEnd(18)}  ${act.padEnd(8)}  ${words.join(' ')}`
}

function brief(value: unknown): string {
  if (Array.isArray(value) && value.length > 3) return `${value.length} items`
  const text = typeof value === 'string' ? value : JSON.stringify(value)
  return text.length > 60 ? `${text.slice(0, 16)}…` : text
}
