import type { Sample } from '../shared/trace.ts'
import { decimalText } from './decimal.ts'
import { type Episode, type FaultSpec, Faults, planEpisodes } from './fault.ts'
import { SeededRandom } from './random.ts'
import { makeSignal, type SignalSpec } from './signal.ts'

export interface DeviceSpec {
  /** Time between two readings, ms. */
  every: number
  /** Strike all its metrics at once. */
  faults: readonly FaultSpec[]
  metrics: Readonly<Record<string, MetricSpec>>
}

export interface MetricSpec {
  signals: readonly SignalSpec[]
  faults: readonly FaultSpec[]
  decimals: number
  /** Sent as `true` or `false`: whether the value is above a half. */
  boolean: boolean
}

/** A known fault: readings of this metric with times of `from` to `to`, both inclusive, by a right clock. */
export interface Label {
  device: string
  metric: string
  fault: FaultSpec['kind']
  fromMs: number
  toMs: number
}

/** An invented device: sends what its signals and faults make of a seed. */
export class Device {
  readonly labels: Label[] = []
  readonly #name: string
  readonly #spec: DeviceSpec
  readonly #startMs: number
  readonly #count: number
  readonly #seed: number
  readonly #episodes = new Map<string, Episode[]>()

  /** @param durationMs length of the recording */
  constructor(name: string, spec: DeviceSpec, seed: number, startMs: number, durationMs: number) {
    this.#name = name
    this.#spec = spec
    this.#seed = seed
    // Devices are not in step.
    const phaseMs = new SeededRandom(seed, `${name}/phase`).below(spec.every)
    this.#startMs = startMs + phaseMs
    this.#count = Math.max(0, Math.ceil((durationMs - phaseMs) / spec.every))
    const common = this.#plan(spec.faults, name)
    for (const [metric, { faults }] of Object.entries(spec.metrics)) {
      const episodes = [...common, ...this.#plan(faults, `${name}/${metric}`)]
      this.#episodes.set(metric, episodes)
      for (const { fault, first, last } of episodes)
        this.labels.push({
          device: name,
          metric,
          fault: fault.kind,
          fromMs: this.#timeOf(first),
          toMs: this.#timeOf(last),
        })
    }
  }

  /** The same at every call. */
  *samples(): Generator<Sample[]> {
    const metrics = Object.entries(this.#spec.metrics).map(
      ([name, spec]) =>
        new Metric(this.#name, name, spec, this.#episodes.get(name) ?? [], this.#seed),
    )
    for (let index = 0; index < this.#count; index++) {
      const timeMs = this.#timeOf(index)
      yield metrics.flatMap((metric) => metric.read(index, timeMs, index * this.#spec.every))
    }
    const rest = metrics.flatMap((metric) => metric.rest(this.#timeOf(this.#count)))
    if (rest.length > 0) yield rest
  }

  #timeOf(index: number): number {
    return this.#startMs + index * this.#spec.every
  }

  #plan(faults: readonly FaultSpec[], name: string): Episode[] {
    return faults.flatMap((fault, i) => {
      const random = new SeededRandom(this.#seed, `${name}/fault/${i}`)
      return planEpisodes(fault, random, this.#count, this.#spec.every)
    })
  }
}

/** One metric of a device: its signals, its faults, and what the faults hold back. */
class Metric {
  readonly #device: string
  readonly #name: string
  readonly #spec: MetricSpec
  readonly #signals
  readonly #faults: Faults
  #heldBack: Sample | undefined

  constructor(device: string, name: string, spec: MetricSpec, episodes: Episode[], seed: number) {
    this.#device = device
    this.#name = name
    this.#spec = spec
    this.#signals = spec.signals.map((signal, i) =>
      makeSignal(signal, new SeededRandom(seed, `${device}/${name}/signal/${i}`)),
    )
    this.#faults = new Faults(episodes, new SeededRandom(seed, `${device}/${name}/garbage`))
  }

  /** What is sent at this time. */
  read(index: number, timeMs: number, elapsedMs: number): Sample[] {
    let clean = 0
    for (const signal of this.#signals) clean += signal(timeMs, elapsedMs)
    const effect = this.#faults.at(index, clean)
    if (effect.dropped) return []
    const { decimals, boolean } = this.#spec
    const sample: Sample = {
      device: this.#device,
      metric: this.#name,
      timeMs: timeMs + effect.skewMs,
      timeNanos: 0,
      value: boolean ? String(effect.value > 0.5) : decimalText(effect.value, decimals),
      atMs: timeMs,
      ...(effect.garbage === undefined ? {} : { garbage: effect.garbage }),
    }
    if (effect.heldBack && !this.#heldBack) {
      this.#heldBack = sample
      return []
    }
    return [...(effect.twice ? [sample, sample] : [sample]), ...this.rest(timeMs)]
  }

  /** What was held back, sent now. */
  rest(atMs: number): Sample[] {
    const sample = this.#heldBack
    this.#heldBack = undefined
    return sample ? [{ ...sample, atMs }] : []
  }
}
