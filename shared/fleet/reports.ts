import { z } from 'zod'
import { ledgerWords } from '../ledger.ts'

/** Everything that an agent says of itself over MQTT is JSON of at most so many bytes. */
export const maxReportBytes = 64 * 1024

const text = z.string().max(4_096)
const time = z.iso.datetime()
const problem = z.object({ path: text, message: text })

/** What an agent is about with the newest configuration that it was sent. */
export const reportStates = [
  /** Nothing has come from the fleet: the configuration file runs. */
  'none',
  /** It has taken the place of the one before; whether the agent stays healthy is not known yet. */
  'applied',
  /** Its health is being judged. */
  'probation',
  'good',
  /** It was not applied: `problems` say why. */
  'refused',
  /** It was applied and taken back: `problems` say why. */
  'reverted',
] as const
export type ReportState = (typeof reportStates)[number]

/** `config/reported`, retained. */
export const reportedSchema = z.object({
  /** Version that runs; 0 is the configuration file of the gateway. */
  version: z.int().min(0),
  /** Since when it runs. */
  since: time,
  /** What became of version `desired`. */
  state: z.enum(reportStates),
  /** The version that `state` and `problems` are about; null where it could not be told. */
  desired: z.int().min(0).nullable(),
  problems: z.array(problem).max(100),
})
export type Reported = z.output<typeof reportedSchema>

/** `status`, retained; the last will is `{"online":false}` with the agent's name. */
export const statusSchema = z.object({
  agent: z.string().max(64),
  online: z.boolean(),
  at: time.optional(),
  versions: z.object({ headgate: text, node: text, config: z.int().min(0) }).optional(),
  uptimeS: z.number().min(0).optional(),
  ledger: z.object(Object.fromEntries(ledgerWords.map((word) => [word, z.number()]))).optional(),
  buffer: z
    .object({ bytes: z.number(), readings: z.number(), oldestAgeS: z.number().nullable() })
    .optional(),
  /** Gateway's clock less the collector's, by its last answer, to a second; null until one came. */
  clockOffsetMs: z.number().nullable().optional(),
  source: text.optional(),
  uplink: text.optional(),
  paused: z.boolean().optional(),
})
export type AgentReport = z.output<typeof statusSchema>

/** The commands that an agent knows. */
export const commandNames = [
  /** Lets go of what the filter holds and sends everything now. */
  'flush',
  /** Ends the process in order, for its supervisor to start it again. */
  'restart',
  /** A bundle of what is known about the agent, without secrets. */
  'diagnostics',
  /** Raw readings of a range, once more: `{from, to, device?, metric?}`. */
  'resend',
  /** Takes nothing more from the source, until `resume`. */
  'pause',
  'resume',
  /** Runs a candidate's filter over the recent raw readings: `{document, from?, to?}`. */
  'rehearse',
] as const
export type CommandName = (typeof commandNames)[number]

/** `result/<id>`, not retained. */
export const resultSchema = z.object({
  id: z.string().max(64),
  command: text,
  /** `refused`: not begun. `failed`: begun. */
  state: z.enum(['done', 'failed', 'refused']),
  at: time,
  /** Why it was refused or has failed. */
  problems: z.array(problem).max(100),
  /** What the command gives: an object of its own. */
  result: z.record(z.string(), z.unknown()).optional(),
})
export type CommandResult = z.output<typeof resultSchema>

/** A configuration in a result nests 18 deep. What is deeper by thousands can be read, but not written. */
const maxDepth = 32

/** What came as JSON from an agent; undefined when it is none of its kind, too large or nested too deep. */
export function readReport<Schema extends z.ZodType>(
  schema: Schema,
  payload: Uint8Array,
): z.output<Schema> | undefined {
  if (payload.length > maxReportBytes) return undefined
  try {
    const content: unknown = JSON.parse(new TextDecoder().decode(payload))
    return nestsWithin(maxDepth, content) ? schema.safeParse(content).data : undefined
  } catch {
    return undefined
  }
}

function nestsWithin(depth: number, content: unknown): boolean {
  if (typeof content !== 'object' || content === null) return true
  return depth > 0 && Object.values(content).every((inner) => nestsWithin(depth - 1, inner))
}
