/** What descriptions of routes are made of. */

export const text = { type: 'string' } as const
export const offset = { type: 'integer', minimum: 0 } as const
export const time = { type: 'string', format: 'date-time' } as const
export const list = (items: object) => ({ type: 'array', items })
export const ref = (name: string) => ({ $ref: `#/components/schemas/${name}` })

export function object(properties: Record<string, object>, optional: readonly string[] = []) {
  const required = Object.keys(properties).filter((name) => !optional.includes(name))
  return { type: 'object', properties, required, additionalProperties: false }
}

export const json = (description: string, schema: object) => ({
  description,
  content: { 'application/json': { schema } },
})
export const problem = (description: string) => json(description, ref('Problem'))
export const lines = (description: string) => ({
  description,
  content: { 'application/x-ndjson': { schema: text } },
})
export const whoever = {
  401: problem('nobody that is known here'),
  403: problem('not allowed to this one'),
}

export const parameter = (
  name: string,
  description: string,
  schema: object,
  more: object = {},
) => ({ name, in: 'query', description, schema, ...more })
export const inPath = (name: string, schema: object) => ({
  name,
  in: 'path',
  required: true,
  schema,
})
export const body = (schema: object) => ({
  required: true,
  content: { 'application/json': { schema } },
})
