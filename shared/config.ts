import { readFile } from 'node:fs/promises'
import { dirname, isAbsolute, resolve } from 'node:path'
import { parseDocument } from 'yaml'
import { z } from 'zod'
import { UserError } from './failure.ts'

/** Largest configuration file, bytes. */
const maxFileBytes = 1024 * 1024

export interface Problem {
  /** Path into the document, such as `uplink.retry.base`; empty for the document itself. */
  path: string
  message: string
}

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
          : String(code)
    throw new UserError(`${file}: ${why}`, { cause })
  }
  if (bytes.length > maxFileBytes) throw new UserError(`${file}: larger than 1 MiB`)
  return parseConfig(schema, bytes.toString('utf8'), { file, environment })
}

/** As `loadConfig`, on a text already read. */
export function parseConfig<Schema extends z.ZodType>(
  schema: Schema,
  text: string,
  options: { file: string; environment?: NodeJS.ProcessEnv },
): z.output<Schema> {
  const document = parseDocument(text, { uniqueKeys: true })
  if (document.errors.length > 0)
    throw new ConfigFailure(
      options.file,
      document.errors.map((error) => ({
        path: '',
        message: error.message.split('\n')[0] ?? 'not YAML',
      })),
    )
  let plain: unknown
  try {
    plain = document.toJS({ maxAliasCount: 0 })
  } catch (cause) {
    throw new ConfigFailure(options.file, [{ path: '', message: (cause as Error).message }])
  }
  const problems: Problem[] = []
  const substituted = substitute(plain, options.environment ?? {}, [], problems)
  const result = schema.safeParse(substituted)
  if (!result.success) for (const issue of result.error.issues) problems.push(...describe(issue))
  if (problems.length > 0 || !result.success) throw new ConfigFailure(options.file, problems)
  return deepFreeze(result.data)
}

function describe(issue: z.core.$ZodIssue): Problem[] {
  const path = issue.path.map(String)
  if (issue.code === 'unrecognized_keys')
    return issue.keys.map((key) => ({ path: [...path, key].join('.'), message: 'unknown key' }))
  return [{ path: path.join('.'), message: issue.message }]
}

function substitute(
  value: unknown,
  environment: NodeJS.ProcessEnv,
  path: string[],
  problems: Problem[],
): unknown {
  if (typeof value === 'string')
    return value.replace(
      /\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}/g,
      (_, name: string, fallback?: string) => {
        // As in a shell: the default also stands in for an empty variable.
        const found = environment[name] || fallback
        if (found !== undefined) return found
        problems.push({
          path: path.join('.'),
          message: `environment variable ${name} is not set (give a default: \${${name}:-…})`,
        })
        return ''
      },
    )
  if (Array.isArray(value))
    return value.map((item, index) =>
      substitute(item, environment, [...path, String(index)], problems),
    )
  if (typeof value === 'object' && value !== null)
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [
        key,
        substitute(item, environment, [...path, key], problems),
      ]),
    )
  return value
}

function deepFreeze<T>(value: T): T {
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
    .union([z.string(), z.number()], { error: `expected ${what}` })
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
