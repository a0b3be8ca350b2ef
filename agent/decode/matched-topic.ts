import type { Series, SeriesTable } from '../../shared/reading.ts'
import { nameProblem } from './name.ts'
import { type DecodeRule, maxValues } from './rule.ts'

/** A value's own share of its series. */
export interface OwnNames {
  unit?: string | undefined
  labels?: Readonly<Record<string, string>> | undefined
}

/** A topic and the rule that decodes it, with what they say about series worked out once. */
export class MatchedTopic {
  readonly rule: DecodeRule
  readonly #table: SeriesTable
  readonly #device: string
  readonly #metric: string | undefined
  readonly #labels: Readonly<Record<string, string>>
  readonly #series = new Map<string | undefined, Series>()

  /**
   * @param taken what the topic has in the place of each name
   * @param agent the device where neither topic nor rule names one
   */
  constructor(
    rule: DecodeRule,
    taken: ReadonlyMap<string, string>,
    options: { agent: string; table: SeriesTable },
  ) {
    this.rule = rule
    this.#table = options.table
    this.#device = taken.get('device') ?? rule.device ?? options.agent
    this.#metric = taken.get('metric') ?? rule.metric
    const labels = [...taken].filter(([name]) => name !== 'device' && name !== 'metric')
    this.#labels = { ...rule.labels, ...Object.fromEntries(labels) }
  }

  /**
   * The series of a value.
   *
   * @param name the value's own; behind the topic's or rule's metric where there is one. Undefined for
   *   a message's only value: the metric is then the topic's or rule's, or else `value`
   * @returns the reason, where the names cannot name a series
   */
  series(name: string | undefined, own: OwnNames = {}): Series | string {
    return this.#series.get(name) ?? this.#make(name, own)
  }

  #make(name: string | undefined, own: OwnNames): Series | string {
    const prefix = this.#metric
    const metric =
      name === undefined ? (prefix ?? 'value') : prefix === undefined ? name : `${prefix}.${name}`
    const labels = { ...this.#labels, ...own.labels }
    for (const [what, text] of [
      ['device', this.#device],
      ['metric', metric],
      ...Object.entries(labels).map(([label, text]) => [`label ${label}`, text] as const),
    ] as const) {
      const problem = nameProblem(text)
      if (problem) return `${what} ${problem}`
    }
    const series = this.#table.intern(this.#device, metric, {
      unit: own.unit ?? this.rule.unit,
      labels,
    })
    if (this.#series.size >= maxValues) this.#series.clear()
    this.#series.set(name, series)
    return series
  }

  /** Series remembered here. */
  get weight(): number {
    return this.#series.size
  }
}
