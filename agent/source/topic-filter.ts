/** Why a text is no topic filter (MQTT 4.7); undefined when it is one. */
export function filterProblem(filter: string): string | undefined {
  if (filter === '') return 'a topic filter must not be empty'
  if (Buffer.byteLength(filter) > 65_535) return 'a topic filter has at most 65,535 bytes'
  if (filter.includes('\0')) return 'a topic filter must not contain U+0000'
  const levels = filter.split('/')
  for (const [index, level] of levels.entries()) {
    if (level.includes('#') && (level !== '#' || index !== levels.length - 1))
      return '# stands alone, as the last level'
    if (level.includes('+') && level !== '+') return '+ stands alone in its level'
  }
  if (levels[0] === '$share' && (levels.length < 3 || /^[+#]?$/.test(levels[1]!)))
    return 'a shared subscription is $share/<group>/<filter>'
  return undefined
}

/** The levels of a filter, or of that in a shared subscription. */
export function levelsOf(filter: string): string[] {
  const levels = filter.split('/')
  return levels[0] === '$share' ? levels.slice(2) : levels
}

/**
 * Whether a filter takes every topic that `narrow`, another filter or a topic, takes; both by level
 * (MQTT 4.7.1).
 */
export function covers(wide: readonly string[], narrow: readonly string[]): boolean {
  if (narrow[0]!.startsWith('$') && /^[+#]$/.test(wide[0]!)) return false
  for (const [i, level] of wide.entries()) {
    if (level === '#') return true
    const other = narrow[i]
    if (other === undefined || other === '#' || (level !== '+' && level !== other)) return false
  }
  return wide.length === narrow.length
}

/**
 * The filters without those that others cover: a broker may deliver a message once for each subscription
 * that takes it, and the copies cannot be told from a sensor that repeats itself.
 */
export function leastFilters(filters: readonly string[]): string[] {
  const shared = (filter: string) => filter.startsWith('$share/')
  const distinct = [...new Set(filters)]
  const levels = new Map(distinct.map((filter) => [filter, levelsOf(filter)]))
  return distinct.filter(
    (narrow) =>
      shared(narrow) ||
      !distinct.some(
        (wide) =>
          wide !== narrow && !shared(wide) && covers(levels.get(wide)!, levels.get(narrow)!),
      ),
  )
}
