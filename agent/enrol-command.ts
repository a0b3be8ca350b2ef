import { stat } from 'node:fs/promises'
import type { Command } from 'commander'
import { UserError } from '../shared/failure.ts'
import { loadAgentConfig } from './config.ts'
import { enrol } from './enrol/enrol.ts'
import { identityFolder } from './enrol/identity.ts'

interface EnrolOptions {
  url?: string
  token?: string
  config?: string
  data?: string
  proxy?: string
}

/** Adds `headgate agent enrol`. */
export function registerEnrol(command: Command): void {
  command
    .command('enrol')
    .alias('enroll')
    .description('make this gateway a member of a fleet: a key made here, a certificate for it')
    .option('--url <url>', "the collector's address, https://host:port")
    .option('--token <token>', 'what `headgate fleet invite` has printed')
    .option('--config <file>', "agent.yaml, for the data folder and the agent's name")
    .option('--data <dir>', 'the data folder, where there is no agent.yaml yet')
    .option('--proxy <url>', 'on the way to the collector; otherwise HTTPS_PROXY')
    .addHelpText(
      'after',
      '\nExample:\n  headgate agent enrol --url https://collector.example.com:7443 --token hg1.… --config agent.yaml',
    )
    .action(act)
}

async function act({ url, token, config: file, data, proxy }: EnrolOptions): Promise<void> {
  if ((file === undefined) === (data === undefined))
    throw new UserError('name the gateway with either --config or --data', { exitCode: 2 })
  const config = file === undefined ? undefined : await loadAgentConfig(file)
  const address = url ?? config?.enrol?.url
  const given = token ?? config?.enrol?.token ?? process.env.HEADGATE_TOKEN
  if (!address) throw new UserError('missing --url: where is the collector?', { exitCode: 2 })
  if (!given) throw new UserError('missing --token: see `headgate fleet invite`', { exitCode: 2 })
  if (!/^https:\/\//.test(address) || !URL.canParse(address))
    throw new UserError(`--url takes an https:// address, not "${address}"`, { exitCode: 2 })
  const home = config?.data ?? data!
  await becomeOwner(home)
  const folder = identityFolder(home)
  const options = { url: address, token: given, folder, proxy, agent: config?.agent }
  const agent = await enrol(options).catch(cannotWrite)
  process.stdout.write(`enrolled as ${agent}: ${folder}\n`)
}

/** @throws UserError on what the system says of a file */
function cannotWrite(cause: NodeJS.ErrnoException): never {
  if (cause.path === undefined || cause.code === undefined) throw cause
  const isOthers = cause.code === 'EACCES' || cause.code === 'EPERM'
  const advice = isOthers ? ': call it as root, or as the user whom the agent runs as' : ''
  throw new UserError(`${cause.path}: cannot write (${cause.code})${advice}`, { cause })
}

/**
 * Where root has called, the agent runs as somebody else: whoever owns its data folder. Root would follow what
 * links they have put there.
 */
async function becomeOwner(data: string): Promise<void> {
  if (process.getuid?.() !== 0) return
  const { uid, gid } = await stat(data).catch(() => ({ uid: 0, gid: 0 }))
  if (uid === 0) return
  process.setgroups!([gid])
  process.setgid!(gid)
  process.setuid!(uid)
}
