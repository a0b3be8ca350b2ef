import { UserError } from '../shared/failure.ts'
import type { Samples } from '../shared/trace.ts'
import { type BadRow, survey, Trace } from '../shared/trace.ts'
import type { Label } from './device.ts'
import { plant } from './plant.ts'
import { deal, dealtNames, limit, merge, repeat } from './recording.ts'
import { loadScenario, stage } from './scenario.ts'

/** What to play: traces, a scenario, or else the invented plant. */
export interface PlaylistOptions {
  /** CSV files. */
  trace?: readonly string[] | undefined
  /** Name or YAML file. */
  scenario?: string | undefined
  /** Devices to deal the traces to, or devices of the plant (default 50). */
  devices?: number | undefined
  /** Play the traces again and again. */
  loop?: boolean | undefined
  /** Of the scenario or plant; default 1. */
  seed?: number | undefined
  /** First time of the scenario or plant; default: now for a plant without seed, else 2026-01-01. */
  startMs?: number | undefined
  /** End after so much time of the recording. */
  durationMs?: number | undefined
  /** End after so many samples. */
  rows?: number | undefined
}

export interface Playlist {
  /** One recording in sending order; may be played once. */
  samples: Samples
  /** Known faults, in order of time; only a scenario has some. */
  labels: Label[]
  /** Whether it ends by itself. */
  finite: boolean
}

const defaultDevices = 50
/** Fixed, so that the same seed gives the same bytes. */
const fixedStartMs = Date.UTC(2026, 0, 1)

/**
 * Opens what is to be played, down to the headers of all traces.
 *
 * @throws UserError in one line when a trace cannot be read or a scenario is wrong
 */
export async function openPlaylist(
  options: PlaylistOptions,
  onBadRow: (row: BadRow) => void = () => {},
): Promise<Playlist> {
  const { durationMs, rows } = options
  const bounded = (samples: Samples) => limit(samples, { rows, durationMs })
  const finite = durationMs !== undefined || rows !== undefined
  if (options.trace) {
    const { trace, devices, loop = false } = options
    const samples = await replay(trace, { devices, loop }, onBadRow)
    return { samples: bounded(samples), labels: [], finite: finite || !loop }
  }
  const { seed = 1 } = options
  if (options.scenario !== undefined) {
    const spec = await loadScenario(options.scenario)
    const startMs = options.startMs ?? fixedStartMs
    const { sources, labels } = stage(spec, { seed, startMs, durationMs })
    return { samples: limit(merge(sources), { rows }), labels, finite: true }
  }
  const { devices = defaultDevices } = options
  const startMs = options.startMs ?? (options.seed === undefined ? Date.now() : fixedStartMs)
  return { samples: bounded(plant({ seed, devices, startMs })), labels: [], finite }
}

async function replay(
  files: readonly string[],
  { devices, loop }: { devices: number | undefined; loop: boolean },
  onBadRow: (row: BadRow) => void,
): Promise<Samples> {
  if (files.length === 0) throw new UserError('--trace takes at least one file', { exitCode: 2 })
  const traces: Trace[] = []
  for (const file of files) traces.push(await Trace.open(file))
  const names = devices === undefined ? undefined : dealtNames(await deviceNames(traces), devices)
  const once = () => {
    const merged = merge(traces.map((trace) => trace.samples(onBadRow)))
    return names ? deal(merged, names) : merged
  }
  return loop ? repeat(once) : once()
}

/** Devices of the traces in order; only traces whose rows name devices need a pass of their own. */
async function deviceNames(traces: readonly Trace[]): Promise<string[]> {
  const names = new Set<string>()
  for (const trace of traces) {
    const known = trace.namesDevices ? (await survey([trace])).devices.keys() : [trace.device]
    for (const name of known) names.add(name)
  }
  return [...names]
}
