import type { Outcome, Rollout } from './state.ts'

/** A share of the agents, or so many of them. */
export type Amount = { percent: number } | { count: number }

/** What a manager asked for; kept whole, so that it goes on after a restart. */
export interface RolloutPlan {
  group: string
  version: number
  digest: string
  /** How many agents have the new version after each wave; the last is everybody. */
  waves: readonly Amount[]
  /** Between the end of a wave and the next, ms. */
  pauseMs: number
  /** It halts where more have failed. */
  maxFailures: Amount
  /** Share of a wave's agents that must be good before the next, in percent. */
  minGoodPercent: number
  /** A wave that is not through by then halts it, ms. */
  timeoutMs: number
  /** Signed in advance, by the agents that get them: what to go back to. Empty: it only halts. */
  reverts: readonly { version: number; digest: string; agents: readonly string[] }[]
  /** All versions that it uses. */
  versions: readonly number[]
}

/** What a rollout does next. */
export type Step =
  | { do: 'wait'; untilMs: number | undefined }
  | { do: 'wave'; agents: readonly string[] }
  | { do: 'halt'; why: string }
  | { do: 'finish' }

export interface Standing {
  sent: number
  good: number
  failed: number
  /** Neither good nor failed: under way, or offline. */
  pending: number
}

/** States in which an agent is done with a version, and not well. */
const failedStates: readonly string[] = ['refused', 'reverted']

/**
 * Decides, from what is known, what a rollout does next; it remembers nothing.
 *
 * @param members the group's agents, in the order in which they get it
 * @param outcomeOf what became of the rollout's version at an agent
 */
export function nextStep(
  rollout: Rollout,
  members: readonly string[],
  outcomeOf: (agent: string) => Outcome | undefined,
  nowMs: number,
): Step {
  const { plan, waves, resumedMs = 0 } = rollout
  const { sent, good, failed } = standing(rollout, outcomeOf)
  // Whoever let it go on has seen these fail: they are not held against it again.
  const forgiven = waves
    .flatMap(({ agents }) => agents)
    .map(outcomeOf)
    .filter((outcome) => outcome && hasFailed(outcome) && outcome.atMs <= resumedMs).length
  const allowed = amountOf(plan.maxFailures, members.length)
  if (failed - forgiven > allowed)
    return { do: 'halt', why: `${failed} of ${sent} agents failed, at most ${allowed} may` }
  const wave = waves.at(-1)
  if (wave) {
    // Whoever was away when it was sent and has not been heard of since says nothing about it. Whoever was
    // there and has fallen silent may have been silenced by it, and is waited for.
    const away = waves.flatMap(({ offline }) => offline).filter((agent) => !outcomeOf(agent))
    const asked = sent - away.length - forgiven
    const least = forgiven > 0 ? 0 : 1
    const needed = Math.max(least, Math.ceil((plan.minGoodPercent / 100) * asked))
    if (good < needed) {
      const untilMs = Math.max(wave.atMs, resumedMs) + plan.timeoutMs
      return nowMs >= untilMs
        ? { do: 'halt', why: `${good} of ${sent} agents are good in time, ${needed} must be` }
        : { do: 'wait', untilMs }
    }
  }
  const done = new Set(waves.flatMap(({ agents }) => agents))
  const left = members.filter((agent) => !done.has(agent))
  if (left.length === 0 && waves.length > 0) return { do: 'finish' }
  if (wave) {
    const reachedMs = Math.max(
      wave.atMs,
      ...wave.agents.map((agent) => outcomeOf(agent)?.atMs ?? 0),
    )
    if (nowMs < reachedMs + plan.pauseMs) return { do: 'wait', untilMs: reachedMs + plan.pauseMs }
  }
  const amount = plan.waves[waves.length]
  const target = amount === undefined ? members.length : amountOf(amount, members.length, Math.ceil)
  return { do: 'wave', agents: left.slice(0, Math.max(1, target - done.size)) }
}

/** How far it has come. */
export function standing(
  rollout: Rollout,
  outcomeOf: (agent: string) => Outcome | undefined,
): Standing {
  const sent = rollout.waves.flatMap(({ agents }) => agents)
  let good = 0
  let failed = 0
  for (const agent of sent) {
    const outcome = outcomeOf(agent)
    if (outcome?.state === 'good') good += 1
    else if (outcome && hasFailed(outcome)) failed += 1
  }
  return { sent: sent.length, good, failed, pending: sent.length - good - failed }
}

function hasFailed({ state }: Outcome): boolean {
  return failedStates.includes(state)
}

function amountOf(amount: Amount, of: number, round = Math.floor): number {
  return 'count' in amount ? Math.min(amount.count, of) : round((amount.percent / 100) * of)
}

/** `3` or `10%`; undefined when it is neither. */
export function parseAmount(text: string): Amount | undefined {
  const [, number, percent] = /^(\d{1,9}|\d{1,3}(?:\.\d+)?(?=%))(%)?$/.exec(text.trim()) ?? []
  if (number === undefined) return undefined
  const value = Number(number)
  if (percent) return value <= 100 ? { percent: value } : undefined
  return { count: value }
}
