import { setFlagsFromString } from 'node:v8'
import type { Command } from 'commander'
import { stopSignal } from '../shared/command.ts'
import { UserError } from '../shared/failure.ts'
import { streams } from '../shared/reading.ts'
import { reportToSystemd } from '../shared/systemd.ts'
import { registerLog } from './log-command.ts'
import { registerSink } from './sink-command.ts'

/** Adds `headgate collector …`, `headgate log …` or `headgate sink …`. */
export function register(command: Command, name: string): void {
  if (name === 'log') {
    registerLog(command)
    return
  }
  if (name === 'sink') {
    registerSink(command)
    return
  }
  command
    .command('run')
    .description('run the collector until it is stopped')
    .requiredOption('--config <file>', 'collector.yaml')
    .addHelpText('after', '\nExample:\n  headgate collector run --config collector.yaml')
    .action(({ config }: { config: string }) => run(config))
  command
    .command('check')
    .description('check a configuration: every problem at once, with its path')
    .requiredOption('--config <file>', 'collector.yaml')
    .option('--json', 'print the configuration as it would run, defaults included')
    .addHelpText('after', '\nExample:\n  headgate collector check --config collector.yaml')
    .action(check)
  command
    .command('token')
    .argument(
      '<name>',
      "an agent's name, reader:<name>, or manager:<name>, who may do all but send",
    )
    .description(
      'make a token for auth.mode token: itself on stderr, the line for the file on stdout',
    )
    .option('--read <streams>', 'of a reader: these streams only, such as readings,alerts')
    .addHelpText(
      'after',
      '\nExamples:\n  headgate collector token gw-001 >> tokens\n' +
        '  headgate collector token reader:grafana --read readings,alerts >> tokens',
    )
    .action(makeToken)
}

/** The file gets only the hash, so that nobody who reads it can send. */
async function makeToken(name: string, { read }: { read?: string }): Promise<void> {
  const [{ hashToken, readScope }, { readCommonName }, { randomBytes }] = await Promise.all([
    import('./auth.ts'),
    import('./fleet/who.ts'),
    import('node:crypto'),
  ])
  const who = readCommonName(name)
  if (!who || who.role === 'collector')
    throw new UserError(
      `"${name}" is neither an agent's name nor reader:<name> nor manager:<name>`,
      { exitCode: 2 },
    )
  if (read !== undefined && (who.role !== 'reader' || !readScope(read)))
    throw new UserError(
      `--read takes streams for a reader:<name>, some of ${streams.join(',')}, not "${read}" for ${name}`,
      { exitCode: 2 },
    )
  const token = `${name}.${randomBytes(16).toString('base64url')}`
  process.stderr.write(`${token}\n`)
  const scope = read === undefined ? '' : ` ${read}`
  process.stdout.write(`${name} ${hashToken(token).toString('hex')}${scope}\n`)
}

async function check({ config: file, json }: { config: string; json?: boolean }): Promise<void> {
  const { loadCollectorConfig } = await import('./config.ts')
  const config = await loadCollectorConfig(file)
  process.stdout.write(json ? `${JSON.stringify(config, masked, 2)}\n` : `${file} is good\n`)
}

/** For `JSON.stringify`: what a configuration shows may be shown to others. */
function masked(key: string, value: unknown): unknown {
  if (typeof value !== 'string') return value
  if (/^(password|secret|token)$/.test(key)) return '***'
  const url = /^[a-z]+:\/\/[^/]*@/.test(value) ? URL.parse(value) : undefined
  if (!url?.password) return value
  url.password = '***'
  return url.href
}

async function run(file: string): Promise<void> {
  // What Node makes to inflate a batch outlives it until all garbage is collected, which came to be three times a
  // second. Collected once the heap is three times what lives, it takes a tenth less of the processor.
  setFlagsFromString('--heap-growing-percent=200')
  // Not before it is wanted: `headgate log` is quick.
  const [{ loadCollectorConfig }, { Collector }, { makeLogger }] = await Promise.all([
    import('./config.ts'),
    import('./collector.ts'),
    import('../shared/log.ts'),
  ])
  const config = await loadCollectorConfig(file)
  const logger = makeLogger('collector')
  const signal = stopSignal()
  if (config.auth.mode === 'open')
    logger.warn('auth is open: every program on this machine may send to this log and read it')
  {
    await using collector = await Collector.open(config, logger)
    logger.info({ url: collector.url, data: config.data }, 'listening')
    using _service = reportToSystemd(logger)
    await new Promise((resolve) => {
      if (signal.aborted) resolve(undefined)
      signal.addEventListener('abort', resolve, { once: true })
    })
    logger.info('stopping')
  }
  logger.info('stopped')
}
