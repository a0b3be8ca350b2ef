import { Command } from 'commander'
import { type Program, runCommand, version } from '../command.ts'

export interface Packed {
  /** Name of the executable. */
  name: `headgate-${string}`
  about: string
  program: Program
  /** Its part of `headgate`: `agent` for what `headgate agent …` does. */
  own: string
  /** Further commands that it brings: `headgate outbox …`. */
  also: Record<string, { about: string; program: Program }>
  /** Configuration where `--config` does not name one. */
  config: string
}

/** Runs an executable's command line: `headgate-agent run` is `headgate agent run`. */
export async function runPacked({
  name,
  about,
  program,
  own,
  also,
  config,
}: Packed): Promise<void> {
  // Node's inspector is switched off, and then nothing else keeps this signal from ending the process.
  process.on('SIGUSR1', () => {})
  const root = new Command(name)
    .description(about)
    .version(version, '-V, --version')
    .showHelpAfterError(false)
  program.register(root, own)
  for (const [word, { about, program }] of Object.entries(also))
    program.register(root.command(word).description(about), word)
  root
    .command('version')
    .description('print the version, and that of Node')
    .option('--json', 'print one JSON document')
    .action(({ json }: { json?: boolean }) => {
      const { platform, arch, versions } = process
      process.stdout.write(
        json
          ? `${JSON.stringify({ name, version, node: versions.node, platform, arch })}\n`
          : `${name} ${version} (Node ${versions.node}, ${platform} ${arch})\n`,
      )
    })
  for (const command of root.commands) {
    const option = command.options.find(({ long }) => long === '--config')
    if (!option) continue
    option.default(config)
    command.setOptionValueWithSource('config', config, 'default')
    // Some commands take the data folder instead.
    command.on('option:data', () => {
      if (command.getOptionValueSource('config') === 'default')
        command.setOptionValueWithSource('config', undefined, 'default')
    })
  }
  speakAs(root, (text) => {
    const commands = [own, ...Object.keys(also)].join('|')
    return text.replace(new RegExp(`\\bheadgate (${commands}) `, 'g'), (_, word: string) =>
      word === own ? `${name} ` : `${name} ${word} `,
    )
  })
  const args = process.argv.slice(2)
  await runCommand(root, args[0] === own ? args.slice(1) : args)
}

/** Help is written for `headgate`; in an executable it names that one. */
function speakAs(command: Command, rename: (text: string) => string): void {
  command.configureOutput({ writeOut: (text) => process.stdout.write(rename(text)) })
  for (const child of command.commands) speakAs(child, rename)
}
