import type { Document, DocumentValue } from '../../shared/fleet/envelope.ts'

/** What changes from one document to another, a line for each value: `- path: old`, `+ path: new`. */
export function difference(before: Document, after: Document): string[] {
  const [old, now] = [leaves(before), leaves(after)]
  const paths = [...new Set([...old.keys(), ...now.keys()])].sort()
  return paths.flatMap((path) => {
    const [was, is] = [old.get(path), now.get(path)]
    if (was === is) return []
    return [
      ...(was === undefined ? [] : [`- ${path}: ${was}`]),
      ...(is === undefined ? [] : [`+ ${path}: ${is}`]),
    ]
  })
}

function leaves(document: Document): Map<string, string> {
  const found = new Map<string, string>()
  const walk = (value: DocumentValue, path: string): void => {
    const entries = typeof value === 'object' && value !== null ? Object.entries(value) : undefined
    if (!entries || entries.length === 0) found.set(path, JSON.stringify(value))
    else for (const [key, inner] of entries) walk(inner, path === '' ? key : `${path}.${key}`)
  }
  walk(document, '')
  return found
}
