/**
 * Shares buckets out evenly. Each member keeps as many of its own as its share allows, so that a collector
 * that comes or goes moves few.
 *
 * @param owned buckets that each member has now; of one claimed twice either may keep it
 */
export function shareOut(
  owned: ReadonlyMap<string, readonly number[]>,
  buckets: number,
): Map<string, number[]> {
  const least = Math.floor(buckets / owned.size)
  let larger = buckets % owned.size
  const taken = new Set<number>()
  const shares = new Map<string, { kept: number[]; size: number }>()
  const byOwned = [...owned].sort(([a, x], [b, y]) => y.length - x.length || (a < b ? -1 : 1))
  for (const [member, claimed] of byOwned) {
    const size = least + (larger-- > 0 ? 1 : 0)
    const free = claimed.filter((bucket) => bucket < buckets && !taken.has(bucket))
    const kept = [...new Set(free)].slice(0, size)
    for (const bucket of kept) taken.add(bucket)
    shares.set(member, { kept, size })
  }
  const rest = Array.from({ length: buckets }, (_, bucket) => bucket).filter((b) => !taken.has(b))
  for (const { kept, size } of shares.values()) kept.push(...rest.splice(0, size - kept.length))
  return new Map([...shares].map(([member, { kept }]) => [member, kept.sort((a, b) => a - b)]))
}
