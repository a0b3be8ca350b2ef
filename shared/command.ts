import { Command, CommanderError } from 'commander'
import manifest from '../package.json' with { type: 'json' }
import { UserError } from './failure.ts'

export const { version } = manifest

/** A program's `main.ts`: adds its commands to the command line. */
export interface Program {
  register(command: Command, name: string): void
}
export type Programs = Record<
  string,
  { load: () => Promise<Program>; about: string; example?: string }
>

/** Runs `headgate <name> …`; loads only the program that is asked for. */
export async function main(args: readonly string[], programs: Programs): Promise<void> {
  const root = new Command('headgate')
    .description(
      'Brings sensor readings from MQTT into a stream log, and says of each where it is.',
    )
    .version(version, '-V, --version')
    .showHelpAfterError(false)
    .addHelpText(
      'after',
      '\nExample:\n  headgate up --speed max --until-done --trace machine_temperature.csv',
    )
  const wanted = args.find((arg) => !arg.startsWith('-')) ?? ''
  for (const [name, { load, about, example }] of Object.entries(programs)) {
    const command = new Command(name).description(about)
    if (example) command.addHelpText('after', `\nExample:\n  headgate ${example}`)
    if (name === wanted || (wanted === 'help' && args.includes(name)))
      (await load()).register(command, name)
    root.addCommand(command)
  }
  await runCommand(root, args)
}

/**
 * Runs one command of `root`, and turns what goes wrong into one line on stderr and an exit code: 2 for a
 * wrong call, 1 for a failure.
 */
export async function runCommand(root: Command, args: readonly string[]): Promise<void> {
  strict(root)
  // A reader of the pipe that has seen enough (`| head`) is no failure.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    process.exit(error.code === 'EPIPE' ? 0 : 1)
  })
  try {
    await root.parseAsync([...args], { from: 'user' })
  } catch (error) {
    process.exitCode = report(error, root.name())
  }
}

/** Commander throws instead of exiting, and keeps its own words off the screen. */
function strict(command: Command): void {
  command.exitOverride().configureOutput({ writeErr: () => {} })
  for (const child of command.commands) strict(child)
}

function report(error: unknown, program: string): number {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return 0
    const message = error.message === '(outputHelp)' ? 'which command? (see --help)' : error.message
    process.stderr.write(`${program}: ${message.replace(/^error: /, '')}\n`)
    return 2
  }
  if (error instanceof UserError) {
    process.stderr.write(`${program}: ${error.message}\n`)
    return error.exitCode
  }
  process.stderr.write(`${program}: ${error instanceof Error ? error.stack : String(error)}\n`)
  return 1
}

/**
 * Aborts on the first SIGINT, SIGTERM or SIGHUP, so that a command can end in order. After
 * `graceMs`, or at a second signal, the process ends whatever still hangs: what is acknowledged is on
 * disk by then.
 */
export function stopSignal(graceMs = 9000): AbortSignal {
  const controller = new AbortController()
  // Under `up` the end of stdin is the end of the parent, however it ended.
  if (process.env.HEADGATE_STOP_WITH_STDIN) {
    process.stdin.once('end', () => process.kill(process.pid, 'SIGTERM'))
    process.stdin.resume()
    process.stdin.unref()
  }
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(name, () => {
      if (controller.signal.aborted) process.exit(1)
      controller.abort(new UserError(`stopped by ${name}`))
      setTimeout(() => process.exit(1), graceMs).unref()
    })
  return controller.signal
}

/** A whole number of at least `min` from the command line. */
export function integerOption(name: string, min: number) {
  return (text: string): number => {
    const value = Number(text)
    if (!Number.isSafeInteger(value) || value < min)
      throw new UserError(`${name} takes a whole number from ${min} on, not "${text}"`, {
        exitCode: 2,
      })
    return value
  }
}

/** Collects a repeatable option into a list. */
export function repeated(value: string, previous: string[] = []): string[] {
  return [...previous, value]
}
