/** Fewest rows to keep, first and last among them, so that all are within ε of the lines between; slow and exact. */
export function optimum(
  times: readonly number[],
  values: readonly number[],
  epsilon: number,
): number {
  let total = 0
  for (let start = 0; start < times.length; ) {
    let end = start + 1
    while (end < times.length && times[end]! > times[end - 1]!) end++
    const fewest = new Int32Array(end - start).fill(2 ** 30)
    fewest[0] = 1
    for (let i = start; i < end; i++) {
      let low = -Infinity
      let high = Infinity
      for (let j = i + 1; j < end && low <= high; j++) {
        const elapsed = times[j]! - times[i]!
        const rise = values[j]! - values[i]!
        const slope = rise / elapsed
        if (slope >= low && slope <= high)
          fewest[j - start] = Math.min(fewest[j - start]!, fewest[i - start]! + 1)
        low = Math.max(low, (rise - epsilon) / elapsed)
        high = Math.min(high, (rise + epsilon) / elapsed)
      }
    }
    total += fewest[end - start - 1]!
    start = end
  }
  return total
}
