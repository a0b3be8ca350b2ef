import { createHash, randomBytes, X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import type { Command } from 'commander'
import { repeated } from '../../shared/command.ts'
import { UserError } from '../../shared/failure.ts'
import { isLabelName, type Labels } from '../../shared/fleet/groups.ts'
import { formatInvitation } from '../../shared/fleet/invitation.ts'
import { systemClock } from '../../shared/system.ts'
import { CsvReader } from '../../shared/trace/csv.ts'
import { addPerson, initFleet } from '../fleet/files.ts'
import { printJson } from '../print.ts'
import {
  checkedAgent,
  checkedLabels,
  durationOption,
  type FleetOptions,
  openApi,
  withFleet,
} from './options.ts'

/** Adds the commands that say who belongs to a fleet. */
export function registerMembers(command: Command): void {
  command
    .command('init')
    .description('make a fleet: an authority, a signing key, certificates of collector and manager')
    .option('--dir <dir>', "the fleet's folder", process.env.HEADGATE_FLEET ?? './fleet')
    .option('--url <url>', 'address of the collector', 'https://localhost:7070')
    .option('--host <name...>', 'further names and addresses of the collector', repeated)
    .option(
      '--manager <name>',
      'what you are called in the audit log',
      process.env.USER || 'manager',
    )
    .option('--ca <cert.pem>', 'an authority of your own, with --ca-key')
    .option('--ca-key <key.pem>', 'its key')
    .addHelpText(
      'after',
      '\nExample:\n  headgate fleet init --dir ./fleet --url https://collector.example.com:7443',
    )
    .action(init)
  for (const role of ['manager', 'reader'] as const)
    command
      .command(role)
      .argument('<name>', 'what they are called in the audit log')
      .description(
        role === 'manager'
          ? 'make the folder of another manager; it needs the authority’s key'
          : 'make the folder of somebody who may read the log, and nothing else',
      )
      .option('--fleet <dir>', "the fleet's folder", process.env.HEADGATE_FLEET ?? './fleet')
      .requiredOption('--out <dir>', 'folder to make, for them')
      .addHelpText('after', `\nExample:\n  headgate fleet ${role} bob --out ./fleet-of-bob`)
      .action(async (given: string, { fleet, out }: { fleet: string; out: string }) => {
        const name = checkedPerson(given)
        await addPerson(fleet, out, { role, name }, systemClock.wallMs())
        process.stdout.write(`${out}: a ${role}'s folder for ${name}\n`)
      })
  withFleet(command.command('invite'))
    .argument('[agent]', 'name of the gateway')
    .description('print a token that lets one gateway into the fleet, once')
    .option('--ttl <duration>', 'how long it may be used', durationOption('--ttl'), 86_400_000)
    .option('--label <name=value...>', 'what is known of it', repeated)
    .option('--from <list.csv>', 'many: a column `agent`, and a column for each label')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nExamples:\n  headgate fleet invite gw-001 --ttl 24h --label group=boilers\n' +
        '  headgate fleet invite --from list.csv > tokens.csv',
    )
    .action(invite)
  withFleet(command.command('revoke'))
    .argument('<name>', 'an agent, or manager:<name>')
    .description('throw out, open connections too')
    .action(async (name: string, options: FleetOptions) => {
      const { client } = await openApi(options)
      await using _ = client
      await client.revoke(name)
      process.stdout.write(`${name} is revoked\n`)
    })
  withFleet(command.command('label'))
    .argument('<agent>')
    .argument('<labels...>', 'name=value; all that it is to have')
    .description('say what is known of a gateway; it learns of it within a quarter of an hour')
    .action(async (agent: string, labels: string[], options: FleetOptions) => {
      const { client } = await openApi(options)
      await using _ = client
      await client.label(checkedAgent(agent), checkedLabels(labels))
    })
}

interface InitOptions {
  dir: string
  url: string
  host?: string[]
  manager: string
  ca?: string
  caKey?: string
}

async function init({ dir, url, host = [], manager, ca, caKey }: InitOptions): Promise<void> {
  if (!/^https:\/\//.test(url) || !URL.canParse(url))
    throw new UserError(`--url takes an https:// address, not "${url}"`, { exitCode: 2 })
  if ((ca === undefined) !== (caKey === undefined))
    throw new UserError('--ca and --ca-key go together', { exitCode: 2 })
  checkedPerson(manager)
  const existing =
    ca === undefined
      ? undefined
      : { certificate: await readText('--ca', ca), key: await readText('--ca-key', caKey!) }
  const nowMs = systemClock.wallMs()
  await initFleet({ folder: dir, url, hosts: host, manager, nowMs, ...(existing && { existing }) })
  process.stdout.write(
    `${dir}: a fleet, managed by ${manager}\n` +
      `  collector.yaml needs   fleet: { folder: ${dir} }\n` +
      `  keep ${dir}/manager for yourself: who has it may change every gateway\n`,
  )
}

function checkedPerson(name: string): string {
  if (/^[A-Za-z0-9_.@-]{1,64}$/.test(name)) return name
  throw new UserError(`a name has 1 to 64 letters, digits or _ . @ -, unlike "${name}"`, {
    exitCode: 2,
  })
}

interface InviteOptions extends FleetOptions {
  ttl: number
  label?: string[]
  from?: string
  json?: boolean
}

async function invite(agent: string | undefined, options: InviteOptions): Promise<void> {
  const { ttl, label = [], from, json } = options
  if ((agent === undefined) === (from === undefined))
    throw new UserError('name one gateway, or a list with --from', { exitCode: 2 })
  const common = checkedLabels(label)
  const wanted = from ? await readList(from) : [{ agent: checkedAgent(agent!), labels: {} }]
  const { files, client } = await openApi(options)
  await using _ = client
  const pin = createHash('sha256').update(new X509Certificate(files.ca).raw).digest()
  const made = wanted.map(({ agent, labels }) => {
    const secret = new Uint8Array(randomBytes(16))
    // The collector gets to know the hash only, and the token only from the gateway.
    const hash = createHash('sha256').update(secret).digest('hex')
    return {
      agent,
      labels: { ...common, ...labels },
      hash,
      token: formatInvitation({ secret, pin }),
    }
  })
  const { expiresAt } = await client.invite(
    made.map(({ token: _, ...invitation }) => invitation),
    ttl,
  )
  if (json)
    return printJson(made.map(({ agent, labels, token }) => ({ agent, labels, token, expiresAt })))
  if (from)
    process.stdout.write(
      `agent,token\n${made.map(({ agent, token }) => `${agent},${token}\n`).join('')}`,
    )
  else process.stdout.write(`${made[0]!.token}\n`)
}

/** A column `agent`; every other is a label. */
async function readList(file: string): Promise<{ agent: string; labels: Labels }[]> {
  const reader = new CsvReader(',')
  const lines = [...reader.feed(await readText('--from', file)), ...reader.end()]
  const fail = (line: number, why: string) => new UserError(`${file}: line ${line}: ${why}`)
  const [head, ...rest] = lines
  if (!head) throw new UserError(`${file}: empty`)
  if (head.problem !== undefined) throw fail(head.line, head.problem)
  const names = head.cells.map((cell) => cell.trim())
  if (!names.includes('agent')) throw fail(head.line, 'expected a column `agent`')
  for (const name of names) if (!isLabelName(name)) throw fail(head.line, `no label: "${name}"`)
  const seen = new Set<string>()
  return rest.map((row) => {
    if (row.problem !== undefined) throw fail(row.line, row.problem)
    const cells = names.map((name, i) => [name, row.cells[i]?.trim() ?? ''] as const)
    const { agent = '', ...labels } = Object.fromEntries(cells.filter(([, value]) => value !== ''))
    if (seen.has(agent)) throw fail(row.line, `${agent} is there twice`)
    seen.add(agent)
    return { agent: checkedAgent(agent), labels }
  })
}

async function readText(option: string, file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (cause) {
    throw new UserError(
      `${option}: ${file} cannot be read (${(cause as NodeJS.ErrnoException).code})`,
      {
        cause,
      },
    )
  }
}
