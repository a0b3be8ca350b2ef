import { type DecodeConfig, type DecodeRule, templateNames } from '../decode/decode.ts'

/** What the decoder would add to a series of a trace: its unit and fixed labels. */
export interface Label {
  unit?: string | undefined
  labels?: Readonly<Record<string, string>> | undefined
}

export interface Labelling {
  decode: DecodeConfig
  /** Name of the agent, which stands in for a device that no topic names. */
  agent: string | undefined
}

/**
 * Finds how series of a trace would be labelled, had they come by MQTT: a trace knows device and metric, and
 * the first decode rule that can make such a series tells the rest.
 */
export function labelOf({ decode, agent }: Labelling, device: string, metric: string): Label {
  for (const rule of decode) {
    const names = templateNames(rule.topic)
    if (names.some((name) => name !== 'device' && name !== 'metric')) continue
    if (!names.includes('device') && (rule.device ?? agent) !== device) continue
    const label = labelIn(rule, names.includes('metric'), metric)
    if (label) return label
  }
  return {}
}

/** Undefined when the rule makes no such metric. */
function labelIn(rule: DecodeRule, inTopic: boolean, metric: string): Label | undefined {
  const { unit, labels, values } = rule
  const own = { unit, labels }
  if (inTopic || values === 'all') return own
  if (!values) return (rule.metric ?? 'value') === metric ? own : undefined
  const found: (Label & { metric: string }) | undefined = values.find(
    (value) => value.metric === metric,
  )
  return found && { unit: found.unit ?? unit, labels: { ...labels, ...found.labels } }
}
