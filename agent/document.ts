import {
  checkConfig,
  deepFreeze,
  type Lookup,
  type Problem,
  readYaml,
  Substitution,
} from '../shared/config.ts'
import { UserError } from '../shared/failure.ts'
import type { Document } from '../shared/fleet/envelope.ts'
import type { Labels } from '../shared/fleet/groups.ts'
import { type AgentConfig, agentSchema, withTopics } from './config.ts'

/**
 * A document is an agent.yaml less what is the gateway's own. It stands alone: what it leaves out has its
 * default, whatever the file on the gateway says, except under `fleet`.
 */
const own = {
  agent: true,
  data: true,
  enrol: true,
  metrics: true,
} as const
const documentSchema = agentSchema.omit(own)

/** Names of files and credentials on the gateway, by section. They go on to hold under any document. */
const ownKeys = {
  source: ['username', 'password', 'passwordFile'],
  'source.tls': ['ca', 'cert', 'key'],
  uplink: ['ca', 'proxy', 'tokenFile'],
  fleet: ['labels', 'proxy'],
} as const

/** Most problems of a document that are told. */
const maxProblems = 100

/** What `${label.x}` and `${env:X}` stand for on a gateway. */
export interface Variables {
  labels: Labels
  environment: NodeJS.ProcessEnv
}

/**
 * Everything that is wrong with a document, each with its path. Without variables, as at a manager's desk,
 * what stands for a `${…}` is taken to be right.
 */
export function documentProblems(document: Document, variables?: Variables): Problem[] {
  return check(document, variables).problems
}

/** The configuration that a document makes of a gateway's own, or everything that is wrong with it. */
export function applyDocument(
  document: Document,
  local: AgentConfig,
  variables: Variables,
): { config: AgentConfig; problems?: undefined } | { config?: undefined; problems: Problem[] } {
  const { value, problems } = check(document, variables)
  if (problems.length > 0 || !value) return { problems }
  const given = sectionOf(document, 'fleet') ?? {}
  const ofFleet = Object.entries(value.fleet).filter(([key]) => Object.hasOwn(given, key))
  const config = withTopics({
    ...local,
    ...value,
    source: withOwn(
      {
        ...value.source,
        tls: value.source.url.startsWith('mqtts:')
          ? withOwn(value.source.tls, local.source.tls, ownKeys['source.tls'])
          : value.source.tls,
      },
      local.source,
      ownKeys.source,
    ),
    uplink: withOwn(value.uplink, local.uplink, ownKeys.uplink),
    fleet: { ...local.fleet, ...Object.fromEntries(ofFleet) },
  })
  return { config: deepFreeze(config) }
}

/**
 * A document from a YAML file.
 *
 * @throws ConfigFailure where it is no YAML; UserError where the file cannot be read or is no mapping
 */
export async function readDocument(file: string): Promise<Document> {
  const content = await readYaml(file)
  if (typeof content !== 'object' || content === null || Array.isArray(content))
    throw new UserError(`${file}: expected a mapping, as in an agent.yaml`)
  return content as Document
}

function check(document: Document, variables: Variables | undefined) {
  const kept = structuredClone(document)
  const problems = takeOwn(kept)
  const given = new Substitution(kept, variables ? lookupOf(variables) : syntaxOnly)
  const { value, problems: found } = checkConfig(documentSchema, given)
  const unresolved = new Set(given.problems.map(({ path }) => path))
  for (const problem of found)
    if (unresolved.has(problem.path) || !given.tells(problem)) problems.push(problem)
    else if (variables)
      problems.push({ path: problem.path, message: 'not right once its variables are put in' })
  return { value, problems: problems.slice(0, maxProblems) }
}

/** Takes out what has no place in a document. */
function takeOwn(document: Document): Problem[] {
  const problems: Problem[] = []
  const take = (section: Document | undefined, keys: readonly string[], path: string) => {
    for (const key of keys)
      if (section && Object.hasOwn(section, key)) {
        delete section[key]
        problems.push({
          path: path ? `${path}.${key}` : key,
          message: "is the gateway's own: it stays in its agent.yaml",
        })
      }
  }
  take(document, Object.keys(own), '')
  for (const [path, keys] of Object.entries(ownKeys)) take(sectionOf(document, path), keys, path)
  return problems
}

function sectionOf(document: Document, path: string): Document | undefined {
  let section: unknown = document
  for (const key of path.split('.'))
    section =
      typeof section === 'object' && section !== null && Object.hasOwn(section, key)
        ? (section as Document)[key]
        : undefined
  return typeof section === 'object' && section !== null && !Array.isArray(section)
    ? (section as Document)
    : undefined
}

function withOwn<Section extends object>(
  section: Section,
  local: Section,
  keys: readonly (keyof Section)[],
): Section {
  const result = { ...section }
  for (const key of keys) if (local[key] !== undefined) result[key] = local[key]
  return result
}

const variable =
  /^(?:label\.(?<label>[A-Za-z_][A-Za-z0-9_.-]*)|env:(?<env>[A-Za-z_][A-Za-z0-9_]*))$/

/** `${label.x}` and `${env:X}`. What they stand for is told to nobody. */
function lookupOf({ labels, environment }: Variables): Lookup {
  return (inside) => {
    const { label, env } = variable.exec(inside)?.groups ?? {}
    if (label !== undefined)
      return Object.hasOwn(labels, label)
        ? { value: labels[label]! }
        : { problem: `this agent has no label ${label}` }
    if (env === undefined) return { problem: wrongVariable }
    const value = environment[env]
    return value ? { value } : { problem: `environment variable ${env} is not set on this gateway` }
  }
}

function syntaxOnly(inside: string): { value: string } | { problem: string } {
  return variable.test(inside) ? { value: `\${${inside}}` } : { problem: wrongVariable }
}

const wrongVariable = `no variable of a document: write \${label.name} or \${env:NAME}`
