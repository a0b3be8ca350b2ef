import { z } from 'zod'
import { duration, filePath } from '../../shared/config.ts'

/** Keys that say how the values of Kafka records are made, and which schema registry knows them. */
export const formatShape = {
  format: z.enum(['json', 'json-schema', 'avro']).default('json'),
  /** Goes with the formats that have a schema. */
  registry: z
    .strictObject({
      /** What has `/subjects` below it. */
      url: z
        .url({ protocol: /^https?$/, error: 'expected an http:// or https:// address' })
        .refine((url) => !/^\w+:\/\/[^/]*@/.test(url), 'expected username and password beside it'),
      /** PEM file of the authority that vouches for the registry. */
      ca: filePath().optional(),
      username: z.string().min(1).optional(),
      /** File that holds it, in one line; so with a bearer token. */
      password: filePath().optional(),
      token: filePath().optional(),
      /** For an answer. */
      timeout: duration({ min: '100ms', max: '5m' }).prefault('10s'),
    })
    .optional(),
}
export type FormatConfig = z.output<z.ZodObject<typeof formatShape>>
export type RegistryConfig = NonNullable<FormatConfig['registry']>

/** What is wrong with it beyond its schema, if anything. */
export function formatProblem({ format, registry }: FormatConfig): string | undefined {
  if (format === 'json') return registry && 'a registry goes with format avro or json-schema'
  if (!registry) return `format ${format} needs a schema registry: registry: { url: … }`
  const { username, password, token } = registry
  if ((username === undefined) !== (password === undefined))
    return "the registry's username and password go together"
  return username !== undefined && token !== undefined
    ? 'a registry takes a token, or a username and password, not both'
    : undefined
}
