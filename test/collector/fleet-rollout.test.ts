import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Fact } from '../../collector/fleet/facts.ts'
import { nextStep, parseAmount, type RolloutPlan } from '../../collector/fleet/rollout.ts'
import { FleetState, type Outcome, type Rollout } from '../../collector/fleet/state.ts'
import type { ReportState } from '../../shared/fleet/reports.ts'

const members = Array.from({ length: 10 }, (_, i) => `gw-${i}`)
const startMs = 1_000_000

function begun(changes: Partial<RolloutPlan> = {}): Rollout {
  return {
    id: 'r',
    by: 'manager:alice',
    startedMs: startMs,
    phase: 'running',
    why: undefined,
    resumedMs: undefined,
    waves: [],
    reverted: [],
    plan: {
      group: 'boilers',
      version: 7,
      digest: 'd',
      waves: [{ count: 1 }, { percent: 30 }, { percent: 100 }],
      pauseMs: 600,
      maxFailures: { count: 1 },
      minGoodPercent: 90,
      timeoutMs: 5_000,
      reverts: [],
      versions: [7],
      ...changes,
    },
  }
}

const outcome = (state: ReportState, atMs = startMs): Outcome => ({
  state,
  atMs,
  why: undefined,
  times: 1,
})
const all = (state: ReportState, names: readonly string[] = members) =>
  new Map(names.map((name) => [name, outcome(state)]))

function step(rollout: Rollout, outcomes = new Map<string, Outcome>(), nowMs = startMs) {
  return nextStep(rollout, members, (agent) => outcomes.get(agent), nowMs)
}
const sent = (...waves: string[][]) =>
  waves.map((agents) => ({ agents, offline: [], atMs: startMs }))

test('waves grow as planned, each only after the one before is good and a pause is over', () => {
  const rollout = begun()
  assert.deepEqual(step(rollout), { do: 'wave', agents: ['gw-0'] })
  rollout.waves = sent(['gw-0'])
  assert.deepEqual(step(rollout), { do: 'wait', untilMs: startMs + 5_000 })
  assert.deepEqual(step(rollout, all('probation')), { do: 'wait', untilMs: startMs + 5_000 })
  assert.deepEqual(step(rollout, all('good')), { do: 'wait', untilMs: startMs + 600 })
  assert.deepEqual(step(rollout, all('good'), startMs + 600), {
    do: 'wave',
    agents: ['gw-1', 'gw-2'],
  })
  rollout.waves = sent(['gw-0'], ['gw-1', 'gw-2'])
  assert.deepEqual(step(rollout, all('good'), startMs + 600), {
    do: 'wave',
    agents: members.slice(3),
  })
  rollout.waves = sent(members)
  assert.deepEqual(step(rollout, all('good'), startMs), { do: 'finish' })
})

test('it halts as soon as more have failed than may, also those that took themselves back', () => {
  const rollout = begun()
  rollout.waves = sent(members.slice(0, 3))
  const one = all('good').set('gw-1', outcome('reverted'))
  assert.equal(step(rollout, one).do, 'wait', 'one may fail, but then two of three are not 90%')
  const two = one.set('gw-2', outcome('refused'))
  assert.deepEqual(step(rollout, two), { do: 'halt', why: '2 of 3 agents failed, at most 1 may' })
  const share = begun({ maxFailures: { percent: 20 } })
  share.waves = rollout.waves
  assert.notEqual(step(share, two).do, 'halt', '20% of ten are two')
})

test('it halts when a wave is not good in time', () => {
  const rollout = begun()
  rollout.waves = sent(['gw-0'])
  assert.equal(step(rollout, new Map(), startMs + 4_999).do, 'wait')
  assert.deepEqual(step(rollout, new Map(), startMs + 5_000), {
    do: 'halt',
    why: '0 of 1 agents are good in time, 1 must be',
  })
})

test('a rollout that is let go on after it halted is judged by what comes then', () => {
  const failed = begun({ maxFailures: { count: 0 }, minGoodPercent: 100 })
  failed.waves = sent(['gw-0', 'gw-1'])
  const outcomes = all('good').set('gw-1', outcome('reverted'))
  assert.equal(step(failed, outcomes, startMs + 600).do, 'halt')
  failed.resumedMs = startMs + 600
  assert.equal(step(failed, outcomes, startMs + 600).do, 'wave')
  failed.waves = sent(['gw-0', 'gw-1', 'gw-2'])
  assert.equal(step(failed, outcomes.set('gw-2', outcome('refused', startMs + 700))).do, 'halt')

  const late = begun()
  late.waves = sent(['gw-0'])
  assert.equal(step(late, new Map(), startMs + 9_000).do, 'halt')
  late.resumedMs = startMs + 9_000
  assert.deepEqual(step(late, new Map(), startMs + 9_000), {
    do: 'wait',
    untilMs: startMs + 14_000,
  })
})

test('who was away when it was sent is neither good nor failed; who fell silent then is waited for', () => {
  const rollout = begun()
  const agents = members.slice(0, 4)
  rollout.waves = [{ agents, offline: ['gw-3'], atMs: startMs }]
  assert.equal(step(rollout, all('good', agents.slice(0, 3)), startMs + 600).do, 'wave')
  rollout.waves = [{ agents, offline: [], atMs: startMs }]
  assert.equal(step(rollout, all('good', agents.slice(0, 3)), startMs + 600).do, 'wait')
  rollout.waves = [{ agents, offline: agents, atMs: startMs }]
  assert.equal(step(rollout, new Map(), startMs + 600).do, 'wait', 'a wave of nobody says nothing')
})

test('amounts are numbers or shares', () => {
  assert.deepEqual(parseAmount('3'), { count: 3 })
  assert.deepEqual(parseAmount('10%'), { percent: 10 })
  assert.deepEqual(parseAmount('2.5%'), { percent: 2.5 })
  for (const text of ['', '%', '-1', '1.5', '101%', 'all', '1e3'])
    assert.equal(parseAmount(text), undefined, text)
})

test('a rollout that ends late leaves the group what was pushed meanwhile', () => {
  const state = new FleetState()
  const { plan, id } = begun()
  const at = new Date(startMs).toISOString()
  const facts: Fact[] = [
    { act: 'rollout', id, plan },
    { act: 'desire', version: 8, digest: 'newer', agents: [], group: plan.group },
    { act: 'finish', id },
  ]
  for (const [i, fact] of facts.entries()) state.apply({ n: i + 1, at, by: 'manager:alice', fact })
  assert.equal(state.groupDesired({ group: plan.group })?.version, 8)
})
