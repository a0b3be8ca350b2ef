/** One level of a template: text that must be there, `+` or a name that takes one level, or `#`. */
type Level =
  | { kind: 'text'; text: string }
  | { kind: 'one'; name: string | undefined }
  | { kind: 'rest' }

/**
 * A topic template such as `sensors/{device}/{metric}`: `{name}` and `+` take one level, `#` at the end
 * takes the rest, none of them the first level of a topic that begins with `$` (MQTT 5, 4.7.2).
 */
export class TopicTemplate {
  /** The template as a topic filter for the broker. */
  readonly filter: string
  /** The names in braces, in their order. */
  readonly names: readonly string[]
  readonly #levels: readonly Level[]

  /** @throws RangeError that says what is wrong with the text */
  constructor(text: string) {
    const problem = templateProblem(text)
    if (problem) throw new RangeError(problem)
    this.filter = topicFilter(text)
    this.#levels = text.split('/').map(levelOf)
    this.names = templateNames(text)
  }

  /** What stands in the place of each of `names`, or undefined where the topic does not match. */
  match(topic: string): string[] | undefined {
    const levels = this.#levels
    const taken: string[] = []
    let from = 0
    for (let i = 0; i < levels.length; i++) {
      const level = levels[i]!
      if (i === 0 && level.kind !== 'text' && topic.startsWith('$')) return undefined
      if (level.kind === 'rest') return taken
      // Behind the last level, `from` is beyond the end.
      if (from > topic.length) return undefined
      const slash = topic.indexOf('/', from)
      const to = slash < 0 ? topic.length : slash
      if (level.kind === 'text') {
        if (to - from !== level.text.length || !topic.startsWith(level.text, from)) return undefined
      } else if (level.name !== undefined) taken.push(topic.slice(from, to))
      from = to + 1
    }
    return from > topic.length ? taken : undefined
  }
}

function levelOf(text: string): Level {
  if (text === '#') return { kind: 'rest' }
  if (text === '+') return { kind: 'one', name: undefined }
  if (text.startsWith('{')) return { kind: 'one', name: text.slice(1, -1) }
  return { kind: 'text', text }
}

/** The names in braces, in their order. */
export function templateNames(template: string): string[] {
  return template
    .split('/')
    .map(levelOf)
    .flatMap((level) => (level.kind === 'one' && level.name !== undefined ? [level.name] : []))
}

/** The MQTT topic filter that takes what the template matches. */
export function topicFilter(template: string): string {
  return template
    .split('/')
    .map((level) => (level.startsWith('{') ? '+' : level))
    .join('/')
}

/** Says what is wrong with a template, or undefined when nothing is. */
export function templateProblem(text: string): string | undefined {
  if (text === '') return 'is empty'
  if (text.length > 1024) return 'is longer than 1,024 characters'
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be in it
  if (/[\u0000-\u001f\u007f]/.test(text)) return 'has a control character'
  const levels = text.split('/')
  const names = new Set<string>()
  for (const [index, level] of levels.entries()) {
    if (level === '+') continue
    if (level === '#') {
      if (index < levels.length - 1) return '# may only be the last level'
      continue
    }
    const name = /^\{([A-Za-z_][A-Za-z0-9_]{0,63})\}$/.exec(level)?.[1]
    if (name !== undefined) {
      if (names.has(name)) return `{${name}} is there twice`
      names.add(name)
    } else if (/[{}+#]/.test(level))
      return `level "${level}": +, # and {name} (letters, digits, _) must fill a level`
  }
  return undefined
}

/** Whether there are topics that both MQTT filters take. */
export function filtersMeet(a: string, b: string): boolean {
  const [left, right] = [a.split('/'), b.split('/')]
  for (let i = 0; ; i++) {
    const [one, other] = [left[i], right[i]]
    if (i === 0 && hidden(one, other)) return false
    if (one === '#' || other === '#') return true
    // `a/#` takes `a` too.
    if (one === undefined) return other === undefined
    if (other === undefined) return false
    if (one !== other && one !== '+' && other !== '+') return false
  }
}

/** A wildcard in front does not take a level that begins with `$`. */
function hidden(one = '', other = ''): boolean {
  const wild = (level: string) => level === '+' || level === '#'
  return (wild(one) && other.startsWith('$')) || (wild(other) && one.startsWith('$'))
}
