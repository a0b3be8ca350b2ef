import { z } from 'zod'
import { checkConfig, type Problem, Substitution } from '../../shared/config.ts'
import type { Command } from '../../shared/fleet/envelope.ts'
import {
  type CommandName,
  type CommandResult,
  commandNames,
  maxReportBytes,
} from '../../shared/fleet/reports.ts'
import type { Logger } from '../../shared/log.ts'
import type { Clock, Disk } from '../../shared/ports.ts'
import { formatTime } from '../../shared/time-text.ts'
import { acceptCommand, type Receiver } from './acceptance.ts'
import { tellable } from './report.ts'
import { readWhole, writeWhole } from './whole-file.ts'

const time = z.iso
  .datetime({ offset: true, error: 'expected a time such as 2026-01-31T12:00:00Z' })
  // biome-ignore lint/style/noRestrictedGlobals: reads a given time, no clock
  .transform((text) => Date.parse(text))
const pattern = z.string().min(1).max(1024)

const none = z.strictObject({})
const argumentSchemas = {
  flush: none,
  restart: none,
  diagnostics: none,
  pause: none,
  resume: none,
  resend: z.strictObject({
    from: time,
    to: time,
    device: pattern.optional(),
    metric: pattern.optional(),
  }),
  rehearse: z.strictObject({
    document: z.record(z.string(), z.unknown()),
    from: time.optional(),
    to: time.optional(),
  }),
} as const satisfies Record<CommandName, z.ZodType>

/** What the commands do. Each gives what is reported as its result. */
export type Actions = {
  [Name in CommandName]: (
    given: z.output<(typeof argumentSchemas)[Name]>,
  ) => Promise<Record<string, unknown>>
}

/** A command that cannot be done, with what is wrong. */
export class CommandProblem extends Error {
  readonly problems: readonly Problem[]

  constructor(problems: readonly Problem[]) {
    super(problems.map(({ message }) => message).join('; '))
    this.problems = problems
  }
}

/** Commands that are remembered. Where none of them has expired, further ones are refused. */
const maxRemembered = 1_000
/** Commands that wait for their turn. */
const maxWaiting = 20

const rememberedSchema = z.object({
  /** By id: when it expires, wall clock ms. */
  seen: z.record(z.string(), z.number()),
  /** Begun, and without a result so far. */
  begun: z.array(z.object({ id: z.string(), command: z.string() })),
})

export interface CommandsOptions {
  disk: Disk
  clock: Clock
  log: Logger
  receiver(): Receiver
  actions: Actions
  publish(result: CommandResult): void
}

/**
 * Does what the fleet asks for, one command after the other, each once: its id is on disk before it begins, and
 * stays there until it has expired, and longer where there is room.
 */
export class Commands {
  readonly #options: CommandsOptions
  #seen: Map<string, number>
  /** Under way. */
  #begun: { id: string; command: string }[] = []
  /** Likewise, when the process before this one ended. */
  #left: { id: string; command: string }[]
  #waiting = 0
  #working: Promise<void> = Promise.resolve()
  #writing: Promise<void> = Promise.resolve()

  private constructor(options: CommandsOptions, remembered: z.output<typeof rememberedSchema>) {
    this.#options = options
    this.#seen = new Map(Object.entries(remembered.seen))
    this.#left = remembered.begun
  }

  static async open(options: CommandsOptions): Promise<Commands> {
    await options.disk.makeDirectory('fleet')
    const read = rememberedSchema.safeParse(await readWhole(options.disk, 'fleet/commands.json'))
    return new Commands(options, read.data ?? { seen: {}, begun: [] })
  }

  /** Tells what became of those that were under way when the process ended. To be called when connected. */
  async settle(): Promise<void> {
    const left = this.#left.splice(0)
    for (const { id, command } of left)
      if (command === 'restart') this.#tell(id, command, 'done', [], {})
      else this.#tell(id, command, 'failed', [{ path: '', message: 'the agent ended meanwhile' }])
    if (left.length > 0) await this.#remember().catch((error) => this.#forgetful(error))
  }

  /** Resolves once the command is remembered, not once it is done. */
  async take(id: string, bytes: Uint8Array): Promise<void> {
    const accepted = acceptCommand(bytes, id, this.#options.receiver())
    if ('problem' in accepted) return this.#tell(id, '', 'refused', [accepted.problem])
    const { command } = accepted
    const verb = command.command
    // The broker delivers a message again where it has not seen our acknowledgement.
    if (this.#seen.has(id)) return
    const refuse = (...problems: Problem[]) => this.#tell(id, verb, 'refused', problems)
    const work = this.#prepare(command)
    if (Array.isArray(work)) return refuse(...work)
    if (this.#seen.size >= maxRemembered) this.#forgetExpired()
    if (this.#seen.size >= maxRemembered || this.#waiting >= maxWaiting)
      return refuse({ path: '', message: 'too many commands at once: try again later' })
    this.#seen.set(id, command.expiresMs)
    this.#begun.push({ id, command: verb })
    try {
      await this.#remember()
    } catch (error) {
      this.#seen.delete(id)
      this.#end(id)
      this.#forgetful(error)
      return refuse({ path: '', message: 'its id cannot be stored, so it might run twice' })
    }
    this.#waiting += 1
    this.#working = this.#working.then(() => this.#do(command, work))
  }

  /** Resolves once nothing is under way. */
  get idle(): Promise<void> {
    return this.#working
  }

  /** What is to be done; or what is wrong with the arguments. */
  #prepare({
    command,
    arguments: given,
  }: Command): (() => Promise<Record<string, unknown>>) | Problem[] {
    const name = commandNames.find((known) => known === command)
    if (!name) return [{ path: 'command', message: `expected one of ${commandNames.join(', ')}` }]
    const asIs = new Substitution(given, (inside) => ({ value: `\${${inside}}` }))
    const { value, problems } = checkConfig(argumentSchemas[name] as z.ZodType, asIs)
    if (problems.length > 0)
      return problems.map(({ path, message }) => ({ path: `arguments.${path}`, message }))
    const action = this.#options.actions[name] as (
      given: unknown,
    ) => Promise<Record<string, unknown>>
    return () => action(value)
  }

  async #do(
    { id, command, expiresMs }: Command,
    work: () => Promise<Record<string, unknown>>,
  ): Promise<void> {
    const { clock, log } = this.#options
    log.info({ id, command }, 'a command from the fleet')
    let isUnderWay = false
    try {
      if (clock.wallMs() >= expiresMs)
        this.#tell(id, command, 'refused', [{ path: '', message: 'it has expired' }])
      else {
        const result = await work()
        // A restart is done once the agent is back.
        isUnderWay = command === 'restart'
        if (!isUnderWay) this.#tell(id, command, 'done', [], result)
      }
    } catch (error) {
      const problems =
        error instanceof CommandProblem
          ? [...error.problems]
          : [{ path: '', message: (error as Error).message }]
      this.#tell(id, command, 'failed', problems)
    }
    this.#waiting -= 1
    if (isUnderWay) return
    this.#end(id)
    await this.#remember().catch((error) => this.#forgetful(error))
  }

  /** Not before there is need of room: the clock may be set back, and what has expired be new again. */
  #forgetExpired(): void {
    const nowMs = this.#options.clock.wallMs()
    for (const [id, expiresMs] of this.#seen) if (expiresMs <= nowMs) this.#seen.delete(id)
  }

  #end(id: string): void {
    this.#begun = this.#begun.filter((other) => other.id !== id)
  }

  #forgetful(error: unknown): void {
    this.#options.log.error({ err: error }, 'the ids of commands cannot be stored')
  }

  #tell(
    id: string,
    command: string,
    state: CommandResult['state'],
    problems: Problem[],
    result?: Record<string, unknown>,
  ): void {
    const at = formatTime(this.#options.clock.wallMs())
    const told = { id, command, state, at, problems: tellable(problems) }
    const whole = { ...told, ...(result && { result }) }
    const fits = Buffer.byteLength(JSON.stringify(whole)) <= maxReportBytes
    const problem = { path: '', message: 'the result is too large to be sent' }
    this.#options.publish(fits ? whole : { ...told, problems: [problem] })
  }

  #remember(): Promise<void> {
    const content = { seen: Object.fromEntries(this.#seen), begun: [...this.#left, ...this.#begun] }
    this.#writing = this.#writing
      .catch(() => {})
      .then(() => writeWhole(this.#options.disk, 'fleet', 'commands.json', content))
    return this.#writing
  }
}
