import { z } from 'zod'

/** What there is to know about a schema from outside, whatever its kind. */
interface Definition {
  innerType?: z.ZodType
  in?: z.ZodType
  options?: z.ZodType[]
  shape?: Record<string, z.ZodType>
  element?: z.ZodType
  valueType?: z.ZodType
}

const filePaths = z.registry<Record<string, never>>()

/** Schema of a file's or folder's path, written relative to the configuration file; gives it absolute. */
export function filePath() {
  return z.string().min(1).register(filePaths, {})
}

/** Makes absolute what a schema says is a file; it does not look into unions and transformed parts. */
export function placeFiles(
  schema: z.ZodType,
  value: unknown,
  place: (path: string) => string,
): unknown {
  const definition = definitionOf(schema)
  if (definition.innerType) return placeFiles(definition.innerType, value, place)
  if (typeof value === 'string') return filePaths.has(schema) ? place(value) : value
  if (typeof value !== 'object' || value === null) return value
  for (const [key, item] of Object.entries(value)) {
    const inside = schemaAt(definition, key)
    if (inside) (value as Record<string, unknown>)[key] = placeFiles(inside, item, place)
  }
  return value
}

/** The keys that a schema takes at a path. */
export function keysAt(schema: z.ZodType, path: readonly PropertyKey[]): string[] {
  const definition = definitionOf(schema)
  const through = definition.innerType ?? definition.in
  if (through) return keysAt(through, path)
  if (definition.options) return definition.options.flatMap((option) => keysAt(option, path))
  const [key, ...rest] = path
  if (key === undefined) return Object.keys(definition.shape ?? {})
  const inside = schemaAt(definition, String(key))
  return inside ? keysAt(inside, rest) : []
}

function schemaAt({ shape, element, valueType }: Definition, key: string): z.ZodType | undefined {
  return shape ? (Object.hasOwn(shape, key) ? shape[key] : undefined) : (element ?? valueType)
}

function definitionOf(schema: z.ZodType): Definition {
  return schema.def as unknown as Definition
}
