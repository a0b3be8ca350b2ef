import { readdirSync } from 'node:fs'
import { z } from 'zod'
import { duration, loadConfig } from '../shared/config.ts'
import { UserError } from '../shared/failure.ts'
import { csvCell, type Samples, timeText, topicProblem } from '../shared/trace.ts'
import { Device, type Label } from './device.ts'
import { faultSchema } from './fault.ts'
import { signalSchema } from './signal.ts'

const topicLevel = z.string().superRefine((name, context) => {
  const problem = topicProblem('the name', name)
  if (problem) context.addIssue({ code: 'custom', message: problem })
})

const metricSchema = z.strictObject({
  signals: z.array(signalSchema).min(1).max(20),
  faults: z.array(faultSchema).max(50).default([]),
  decimals: z.int().min(0).max(9).default(2),
  boolean: z.boolean().default(false),
})

/** Devices with signals and labelled faults, as a YAML file says; see `scenarios/` for examples. */
export const scenarioSchema = z.strictObject({
  about: z.string().max(500).optional(),
  duration: duration({ min: '1s', max: '3650d' }),
  devices: z
    .array(
      z
        .strictObject({
          /** `{n}` becomes 001, 002 and so on. */
          name: topicLevel,
          count: z.int().min(1).max(10_000).default(1),
          every: duration({ min: '1ms', max: '1d' }).prefault('1s'),
          faults: z.array(faultSchema).max(50).default([]),
          metrics: z.record(topicLevel, metricSchema),
        })
        .refine(({ name, count }) => count === 1 || name.includes('{n}'), {
          message: 'needs {n} in its name where count is more than 1',
          path: ['name'],
        }),
    )
    .min(1)
    .max(100),
})
export type ScenarioSpec = z.output<typeof scenarioSchema>

export interface ScenarioOptions {
  seed: number
  startMs: number
  /** Instead of the scenario's own. */
  durationMs: number | undefined
}

const directory = new URL('./scenarios/', import.meta.url)

/** Names that `--scenario` knows without a file. */
export function scenarioNames(): string[] {
  return readdirSync(directory)
    .filter((file) => file.endsWith('.yaml'))
    .map((file) => file.slice(0, -'.yaml'.length))
    .sort()
}

/** Reads a named scenario or a YAML file. @throws UserError with every problem in it */
export async function loadScenario(nameOrFile: string): Promise<ScenarioSpec> {
  if (/\.ya?ml$/i.test(nameOrFile)) return loadConfig(scenarioSchema, nameOrFile)
  const names = scenarioNames()
  if (!names.includes(nameOrFile))
    throw new UserError(
      `no scenario "${nameOrFile}": one of ${names.join(', ')}, or a file that ends in .yaml`,
      { exitCode: 2 },
    )
  return loadConfig(scenarioSchema, new URL(`${nameOrFile}.yaml`, directory).pathname)
}

/** The scenario's devices as sources, and all that is wrong with them, in order of time. */
export function stage(
  spec: ScenarioSpec,
  { seed, startMs, durationMs = spec.duration }: ScenarioOptions,
): { sources: Samples[]; labels: Label[] } {
  const devices: Device[] = []
  const names = new Set<string>()
  for (const deviceSpec of spec.devices)
    for (let n = 1; n <= deviceSpec.count; n++) {
      const name = deviceSpec.name.replaceAll('{n}', String(n).padStart(3, '0'))
      if (names.has(name)) throw new UserError(`the scenario has two devices named "${name}"`)
      names.add(name)
      devices.push(new Device(name, deviceSpec, seed, startMs, durationMs))
    }
  return {
    sources: devices.map((device) => device.samples()),
    labels: devices
      .flatMap(({ labels }) => labels)
      .sort((a, b) => a.fromMs - b.fromMs || a.toMs - b.toMs),
  }
}

/** Labels as a file has them: CSV where its name ends so, JSON otherwise. */
export function labelsText(labels: readonly Label[], file: string): string {
  const rows = labels.map(({ device, metric, fault, fromMs, toMs }) => ({
    device,
    metric,
    fault,
    from: timeText({ timeMs: fromMs, timeNanos: 0 }),
    to: timeText({ timeMs: toMs, timeNanos: 0 }),
  }))
  if (!/\.csv$/i.test(file)) return `${JSON.stringify(rows, null, 2)}\n`
  const lines = rows.map((row) => Object.values(row).map(csvCell).join(','))
  return ['device,metric,fault,from,to', ...lines, ''].join('\n')
}
