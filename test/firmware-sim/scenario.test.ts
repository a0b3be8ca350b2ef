import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import type { FaultSpec } from '../../firmware-sim/fault.ts'
import { payloadOf } from '../../firmware-sim/payload.ts'
import { merge } from '../../firmware-sim/recording.ts'
import {
  labelsText,
  loadScenario,
  type ScenarioSpec,
  scenarioNames,
  scenarioSchema,
  stage,
} from '../../firmware-sim/scenario.ts'
import { ConfigFailure, parseConfig } from '../../shared/config.ts'
import type { Sample } from '../../shared/trace.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const startMs = Date.UTC(2026, 0, 1)

async function play(spec: ScenarioSpec, seed = 1, durationMs?: number) {
  const { sources, labels } = stage(spec, { seed, startMs, durationMs })
  return { samples: (await Array.fromAsync(merge(sources))).flat(), labels }
}

/** A device that counts its readings, one a second for a minute, under one fault. */
function counting(fault: string): ScenarioSpec {
  return parseConfig(
    scenarioSchema,
    `
duration: 60s
devices:
  - name: d
    metrics:
      count:
        decimals: 0
        signals: [{ kind: drift, perDay: 86400 }]
        faults: [${fault}]
`,
    { file: 'scenario' },
  )
}

/** Values and seconds as sent, by the readings' own numbers. */
const brief = (samples: Sample[]) => {
  const phaseMs = samples[0]!.timeMs % 1000
  return samples.map((sample) => {
    const second = (sample.timeMs - phaseMs - startMs) / 1000
    return sample.garbage === undefined ? `${second}:${sample.value}` : 'garbage'
  })
}

const clean = Array.from({ length: 60 }, (_, i) => `${i}:${i}`)

const faults: Record<FaultSpec['kind'], [string, string[]]> = {
  spike: ['{ kind: spike, size: 100, at: 10s }', clean.with(10, '10:110')],
  shift: [
    '{ kind: shift, size: 100, at: 10s, for: 2s }',
    clean.with(10, '10:110').with(11, '11:111'),
  ],
  drift: [
    '{ kind: drift, size: 30, at: 10s, for: 3s }',
    clean.with(10, '10:20').with(11, '11:31').with(12, '12:42'),
  ],
  stuck: ['{ kind: stuck, at: 10s, for: 3s }', clean.with(11, '11:10').with(12, '12:10')],
  dropout: ['{ kind: dropout, at: 10s, for: 3s }', clean.toSpliced(10, 3)],
  duplicate: [
    '{ kind: duplicate, at: 10s, for: 2s }',
    clean.toSpliced(10, 2, '10:10', '10:10', '11:11', '11:11'),
  ],
  outOfOrder: [
    '{ kind: outOfOrder, at: 10s, for: 4s }',
    clean.toSpliced(10, 4, '11:11', '10:10', '13:13', '12:12'),
  ],
  clockSkew: [
    '{ kind: clockSkew, by: -1h, at: 10s, for: 2s }',
    clean.with(10, '-3590:10').with(11, '-3589:11'),
  ],
  garbage: ['{ kind: garbage, at: 10s, for: 2s }', clean.with(10, 'garbage').with(11, 'garbage')],
}

for (const [kind, [fault, expected]] of Object.entries(faults))
  test(`the fault ${kind} does what it says, where its label says`, async () => {
    const { samples, labels } = await play(counting(fault))
    assert.deepEqual(brief(samples), expected)
    const phaseMs = samples[0]!.timeMs - startMs
    const length = /for: (\d)s/.exec(fault)?.[1] ?? '1'
    assert.deepEqual(labels, [
      {
        device: 'd',
        metric: 'count',
        fault: kind,
        fromMs: startMs + phaseMs + 10_000,
        toMs: startMs + phaseMs + 9000 + Number(length) * 1000,
      },
    ])
  })

test('what is held back at the end of a recording is sent all the same', async () => {
  const { samples } = await play(counting('{ kind: outOfOrder, at: 59s }'))
  assert.deepEqual(brief(samples), clean)
})

test('every named scenario is the same for the same seed, and another one for another', async () => {
  assert.deepEqual(scenarioNames(), ['building', 'cold-chain', 'pump-bearing', 'vehicle'])
  for (const name of scenarioNames()) {
    const spec = await loadScenario(name)
    const bytes = async (seed: number) => {
      const { samples, labels } = await play(spec, seed, 3_600_000)
      return samples.map(payloadOf).join('\n') + labelsText(labels, 'x.json')
    }
    assert.equal(await bytes(7), await bytes(7), name)
    assert.notEqual(await bytes(7), await bytes(8), name)
  }
})

test('labels are inside the recording and cover every kind of fault', async () => {
  const kinds = new Set<string>()
  for (const name of scenarioNames()) {
    const spec = await loadScenario(name)
    const { labels } = stage(spec, { seed: 1, startMs, durationMs: undefined })
    for (const { fault, fromMs, toMs } of labels) {
      kinds.add(fault)
      assert.ok(startMs <= fromMs && fromMs <= toMs && toMs < startMs + spec.duration)
    }
  }
  assert.deepEqual([...kinds].sort(), Object.keys(faults).sort())
})

test('adding a device changes nothing about another one', async () => {
  const one = counting('{ kind: spike, size: 5, every: 7s }')
  const two = { ...one, devices: [...one.devices, { ...one.devices[0]!, name: 'e' }] }
  const { samples } = await play(two)
  assert.deepEqual(
    samples.filter(({ device }) => device === 'd'),
    (await play(one)).samples,
  )
})

test('labels are written as CSV where the name says so', () => {
  const label = { device: 'a,b', metric: 'm', fault: 'spike', fromMs: 0, toMs: 1000 } as const
  assert.equal(
    labelsText([label], 'x.csv'),
    'device,metric,fault,from,to\n"a,b",m,spike,1970-01-01T00:00:00.000Z,1970-01-01T00:00:01.000Z\n',
  )
  assert.deepEqual(JSON.parse(labelsText([label], 'x.json')), [
    {
      device: 'a,b',
      metric: 'm',
      fault: 'spike',
      from: '1970-01-01T00:00:00.000Z',
      to: '1970-01-01T00:00:01.000Z',
    },
  ])
})

test('every problem of a scenario file is reported with its path', async (t) => {
  const file = join(await temporaryDirectory(t), 'bad.yaml')
  await writeFile(
    file,
    `
duration: soon
devices:
  - name: a/b
    metrics: { m: { signals: [{ kind: noise }], faults: [{ kind: spike, size: 1 }] } }
  - { name: same, count: 2, metrics: {}, colour: red }
`,
  )
  await assert.rejects(loadScenario(file), (error) => {
    assert.ok(error instanceof ConfigFailure)
    assert.deepEqual(error.problems.map(({ path }) => path).sort(), [
      'devices.0.metrics.m.faults.0',
      'devices.0.metrics.m.signals.0.sigma',
      'devices.0.name',
      'devices.1.colour',
      'devices.1.name',
      'duration',
    ])
    return true
  })
  await assert.rejects(loadScenario('nonsense'), /no scenario "nonsense": one of building, /)
})
