/** How long a suite may take: a look while developing, what CI runs, or `--full`. */
const full = process.env.HEADGATE_FULL === '1'
const ci = process.env.CI === 'true'

/** A number that a variable sets, and else the occasion: a developer's run, CI, or `--full`. */
export function effort(
  variable: string,
  { quick, inCi, inFull }: Record<'quick' | 'inCi' | 'inFull', number>,
): number {
  const given = Number(process.env[variable])
  if (Number.isSafeInteger(given) && given > 0) return given
  return full ? inFull : ci ? inCi : quick
}

/** `HEADGATE_SEED`, or one that nobody has chosen; to be printed by the test. */
export function chooseSeed(): number {
  const given = Number(process.env.HEADGATE_SEED)
  return Number.isSafeInteger(given) && given > 0 ? given : 1 + Math.floor(Math.random() * 1e9)
}
