import { readFile } from 'node:fs/promises'
import { dirname, isAbsolute, resolve } from 'node:path'
import { parseDocument } from 'yaml'
import { z } from 'zod'
import { environmentLookup, Substitution } from './config-environment.ts'
import { describe, expecting, type Problem, words } from './config-problem.ts'
import { placeFiles } from './config-schema.ts'
import { UserError } from './failure.ts'

export { type Lookup, Substitution } from './config-environment.ts'
export type { Problem } from './config-problem.ts'
export { filePath } from './config-schema.ts'

/** Largest configuration file, bytes. */
const maxFileBytes = 1024 * 1024

/** A configuration that must not run: every problem at once, each with its path. */
export class ConfigFailure extends UserError {
  readonly problems: readonly Problem[]

  constructor(file: string, problems: readonly Problem[]) {
    const lines = problems.map(({ path, message }) => `${path ? `${path}: ` : ''}${message}`)
    super(
      problems.length === 1
        ? `${file}: ${lines[0]}`
        : `${file}: ${lines.length} problems\n  ${lines.join('\n  ')}`,
    )
    this.name = 'ConfigFailure'
    this.problems = problems
  }
}

/**
 * Reads a YAML file, puts environment variables in (`${VAR}`, `${VAR:-default}`), checks it against the
 * schema and freezes it.
 *
 * @throws ConfigFailure with every problem found; UserError when the file cannot be read
 */
export async function loadConfig<Schema extends z.ZodType>(
  schema: Schema,
  file: string,
  environment: NodeJS.ProcessEnv = process.env,
): Promise<z.output<Schema>> {
  return parseConfig(schema, await readText(file), { file, environment })
}

/**
 * A YAML file as it stands, for who wants a part of it.
 *
 * @throws ConfigFailure where it is no YAML; UserError when the file cannot be read
 */
export async function readYaml(file: string): Promise<unknown> {
  return parseYaml(await readText(file), file)
}

async function readText(file: string): Promise<string> {
  let bytes: Buffer
  try {
    bytes = await readFile(file)
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    const why =
      code === 'ENOENT'
        ? 'no such file: check --config'
        : code === 'EACCES'
          ? 'no permission to read it'
          : code === 'EISDIR'
            ? 'is a folder, not a file'
            : String(code)
    throw new UserError(`${file}: ${why}`, { cause })
  }
  if (bytes.length > maxFileBytes) throw new UserError(`${file}: larger than 1 MiB`)
  return bytes.toString('utf8')
}

/** As `loadConfig`, on a text already read. */
export function parseConfig<Schema extends z.ZodType>(
  schema: Schema,
  text: string,
  options: { file: string; environment?: NodeJS.ProcessEnv },
): z.output<Schema> {
  const given = new Substitution(
    parseYaml(text, options.file),
    environmentLookup(options.environment ?? {}),
  )
  const { value, problems } = checkConfig(schema, given)
  if (problems.length > 0) throw new ConfigFailure(options.file, problems)
  const place = (path: string) => relativeTo(options.file, path)
  return deepFreeze(placeFiles(schema, value, place) as z.output<Schema>)
}

/** A document against a schema: every problem at once, or what it says. */
export function checkConfig<Schema extends z.ZodType>(
  schema: Schema,
  given: Substitution,
): { value: z.output<Schema> | undefined; problems: Problem[] } {
  const check = () => schema.safeParse(given.document, { error: words, reportInput: true })
  let result = check()
  if (!result.success && given.retype(result.error.issues)) result = check()
  const problems = [...given.problems]
  if (!result.success) {
    const named = new Set(problems.map(({ path }) => path))
    const described = describe(result.error.issues, schema)
    problems.push(...described.filter(({ path }) => !named.has(path)))
  }
  return { value: result.data, problems }
}

function parseYaml(text: string, file: string): unknown {
  const fail = (...messages: string[]) =>
    new ConfigFailure(
      file,
      messages.map((message) => ({ path: '', message })),
    )
  const document = parseDocument(text, { uniqueKeys: true })
  const places = new Set<number>()
  const messages = document.errors.flatMap(({ code, message, pos }) => {
    // What follows at the same place follows from the first.
    if (places.has(pos[0])) return []
    places.add(pos[0])
    if (code === 'MULTIPLE_DOCS') return ['more than one YAML document']
    // Behind the first line stands a drawing of the place.
    return [message.split('\n')[0]!.replace(/:$/, '')]
  })
  if (messages.length > 0) throw fail(...messages)
  try {
    return document.toJS({ maxAliasCount: 0 })
  } catch (cause) {
    if (cause instanceof ReferenceError) throw fail('an alias (*name) has no place here')
    throw cause
  }
}

/** Also what is in it. */
export function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value)
    for (const item of Object.values(value)) deepFreeze(item)
  }
  return value
}

/** A path in a configuration file is relative to that file. */
export function relativeTo(configFile: string, path: string): string {
  return isAbsolute(path) ? path : resolve(dirname(configFile), path)
}

const durationUnits = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const

/** `250ms`, `10s`, `5m`, `1h`, `7d` to milliseconds; undefined when it is none. */
export function parseDuration(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(text.trim())
  return match
    ? Math.round(Number(match[1]) * durationUnits[match[2] as keyof typeof durationUnits])
    : undefined
}

const sizeUnits = {
  B: 1,
  kB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
}

/** `64KiB`, `10GiB`, `500MB` or a number of bytes; undefined when it is none. */
export function parseSize(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)?$/.exec(text.trim())
  return match
    ? Math.round(Number(match[1]) * sizeUnits[(match[2] ?? 'B') as keyof typeof sizeUnits])
    : undefined
}

/** Schema of a text that `problemOf` finds nothing wrong with. */
export function text(problemOf: (given: string) => string | undefined) {
  return z.string().superRefine((given, context) => {
    const message = problemOf(given)
    if (message) context.addIssue({ code: 'custom', message })
  })
}

interface Bounds {
  min: string
  max: string
}

/** Schema of a duration within bounds; gives milliseconds. A default goes in with `.prefault('10s')`. */
export function duration(bounds: Bounds) {
  return quantity(parseDuration, 'a duration such as 250ms, 10s, 5m, 1h', bounds)
}

/** Schema of a size within bounds; gives bytes. A default goes in with `.prefault('1MiB')`. */
export function size(bounds: Bounds) {
  return quantity(parseSize, 'a size such as 64KiB, 10MiB, 10GiB', bounds)
}

function quantity(parse: (text: string) => number | undefined, what: string, bounds: Bounds) {
  const [min, max] = [parse(bounds.min), parse(bounds.max)]
  if (min === undefined || max === undefined)
    throw new RangeError(`bad bounds ${bounds.min}, ${bounds.max}`)
  return z
    .union([z.string(), z.number()], { error: expecting(what) })
    .transform((given, context) => {
      const parsed = parse(String(given))
      if (parsed === undefined)
        context.addIssue({
          code: 'custom',
          message: `expected ${what}, not ${JSON.stringify(given)}`,
        })
      else if (parsed < min || parsed > max)
        context.addIssue({
          code: 'custom',
          message: `must be between ${bounds.min} and ${bounds.max}`,
        })
      return parsed ?? 0
    })
}
