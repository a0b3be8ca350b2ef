import { z } from 'zod'
import { filePath, loadConfig, type Problem, text } from '../shared/config.ts'
import { decodeSchema, filtersMeet, topicFilter } from './decode/decode.ts'
import { enrolSchema } from './enrol/config.ts'
import { filterSchema } from './filter/filter.ts'
import { fleetSchema } from './fleet/config.ts'
import { outboxSchema } from './outbox/outbox.ts'
import { sourceSchema } from './source/source.ts'
import { uplinkSchema } from './uplink/uplink.ts'

/** What a file must have to be an agent.yaml; docs/CONFIGURATION.md describes every key. */
export const agentSchema = z.strictObject({
  /** The agent's name; the collector and the fleet know it by this. */
  agent: text((name) =>
    /^[A-Za-z0-9_-]{1,64}$/.test(name)
      ? undefined
      : 'expected 1 to 64 letters (A to Z, a to z), digits, _ or -',
  ),
  /** Folder of the outbox. */
  data: filePath(),
  source: sourceSchema,
  decode: decodeSchema,
  filter: filterSchema,
  outbox: outboxSchema.prefault({}),
  uplink: uplinkSchema,
  enrol: enrolSchema,
  /** What matters once the agent belongs to a fleet. */
  fleet: fleetSchema,
  metrics: z
    .strictObject({
      host: z.string().min(1).default('127.0.0.1'),
      /** 0 takes a free port. */
      port: z.int().min(0).max(65_535),
    })
    .optional(),
})

const sections = agentSchema.partial()
/** Those parts of an agent.yaml that are there. */
export type AgentSections = Readonly<z.output<typeof sections>>

/** A whole agent.yaml, with the topics that its decode rules ask for where it names none. */
export type AgentConfig = Readonly<
  Omit<z.output<typeof agentSchema>, 'source'> & {
    source: z.output<typeof sourceSchema> & { topics: string[] }
  }
>

/** @throws ConfigFailure with every problem at once; UserError when the file cannot be read */
export async function loadAgentConfig(
  file: string,
  environment: NodeJS.ProcessEnv = process.env,
): Promise<AgentConfig> {
  return withTopics(await loadConfig(agentSchema, file, environment))
}

/** Subscribes to what the decode rules ask for, where nothing else is said. */
export function withTopics(config: z.output<typeof agentSchema>): AgentConfig {
  const topics = config.source.topics ?? [
    ...new Set(config.decode.map(({ topic }) => topicFilter(topic))),
  ]
  return Object.freeze({
    ...config,
    source: Object.freeze({ ...config.source, topics }),
  })
}

/** As `loadAgentConfig`, of a file that may leave parts out: what is there must be right. */
export function loadAgentSections(
  file: string,
  environment: NodeJS.ProcessEnv = process.env,
): Promise<AgentSections> {
  return loadConfig(sections, file, environment)
}

/** What will run, but hardly as it was meant. */
export function agentWarnings({ source, decode, metrics }: AgentConfig): Problem[] {
  const warnings: Problem[] = []
  const filters = decode.map(({ topic }) => topicFilter(topic))
  // A shared subscription, `$share/<group>/<filter>`, delivers topics of the filter in it.
  const topics = source.topics.map((topic) => topic.replace(/^\$share\/[^/]*\//, ''))
  for (const [index, topic] of topics.entries())
    if (!filters.some((filter) => filtersMeet(filter, topic)))
      warnings.push({
        path: `source.topics.${index}`,
        message: 'no decode rule takes such topics: all of it would go into quarantine',
      })
  for (const [index, topic] of topics.entries()) {
    const first = topics.findIndex((other) => filtersMeet(other, topic))
    if (first < index)
      warnings.push({
        path: `source.topics.${index}`,
        message: `overlaps source.topics.${first}: a broker may deliver twice what both take`,
      })
  }
  if (metrics && !/^(127\.|localhost$|::1$)/.test(metrics.host))
    warnings.push({
      path: 'metrics.host',
      message: `whoever reaches ${metrics.host} can read the figures: nobody is asked who he is`,
    })
  for (const [index, filter] of filters.entries()) {
    const path = `decode.${index}.topic`
    const first = filters.indexOf(filter)
    if (first < index)
      warnings.push({ path, message: `never used: decode.${first} takes the same topics first` })
    else if (!topics.some((topic) => filtersMeet(filter, topic)))
      warnings.push({ path, message: 'never used: source.topics asks for no such topics' })
    if (/[+#]/.test(filter) && !decode[index]!.topic.includes('{'))
      warnings.push({
        path,
        message: 'readings of all its topics fall into one series: write {device} for a level',
      })
  }
  return warnings
}

/** One line on what a configuration does. */
export function describeAgent({ agent, data, source, decode, uplink }: AgentConfig): string {
  const rules = decode.length === 1 ? '1 decode rule' : `${decode.length} decode rules`
  return (
    `agent ${agent}: ${source.topics.join(', ')} from ${withoutPassword(source.url)}, ${rules}, ` +
    `to ${withoutPassword(uplink.url)}, kept in ${data}`
  )
}

function withoutPassword(url: string): string {
  return url.replace(/^([a-z0-9+.-]+:\/\/)[^/@]*@/i, '$1')
}
