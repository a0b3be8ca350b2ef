import { formatTime } from '../../shared/time-text.ts'
import type { TrialReport } from './trial.ts'

/** Series and alerts told one by one. */
const maxSeriesLines = 50
const maxAlertLines = 50

/** What would have happened, for a person. */
export function summary({
  name,
  readings,
  kept,
  suppressed,
  absorbed,
  derived,
  beyondMaxSeries,
  late,
  badRows,
  bytes,
  series,
  alerts,
}: TrialReport): string {
  const share = (part: number) => `${((100 * part) / Math.max(1, readings)).toFixed(1)} %`
  const lines = [
    `${name}: ${count(readings)} readings${badRows > 0 ? `, ${count(badRows)} bad rows` : ''}`,
    `  kept ${count(kept)} (${share(kept)}), suppressed ${count(suppressed)}, absorbed ${count(absorbed)}` +
      (derived > 0 ? `, made ${count(derived)}` : ''),
    `  on the wire ${count(bytes.after)} bytes instead of ${count(bytes.before)}`,
  ]
  if (beyondMaxSeries > 0)
    lines.push(`  ${count(beyondMaxSeries)} passed whole: of series beyond maxSeries of their rule`)
  if (late > 0) lines.push(`  ${count(late)} passed whole: came behind their window`)
  for (const one of series.slice(0, maxSeriesLines)) {
    const {
      device,
      metric,
      largestError,
      errorBound,
      rmsError,
      anomalies,
      anomaliesPerDay,
      faults,
    } = one
    const error =
      one.suppressed > 0
        ? `, off by at most ${short(largestError)} (bound ${short(errorBound)}), RMS ${short(rmsError)}`
        : ''
    const absorbed = one.absorbed > 0 ? `, absorbed ${count(one.absorbed)}` : ''
    lines.push(
      `  ${device} ${metric}: kept ${count(one.kept)} of ${count(one.readings)}${absorbed}${error}; ` +
        `${anomalies} anomalies (${short(anomaliesPerDay)} a day), ${faults} faults`,
    )
  }
  if (series.length > maxSeriesLines)
    lines.push(`  … and ${series.length - maxSeriesLines} more series`)
  const raised = alerts.filter(({ state }) => state === 'raised')
  for (const alert of raised.slice(0, maxAlertLines)) lines.push(`  ${alertLine(alert)}`)
  if (raised.length > maxAlertLines)
    lines.push(`  … and ${raised.length - maxAlertLines} more alerts (--json has all)`)
  return lines.join('\n')
}

/** Faults whose findings are times, ms. */
const timeFaults = ['stuck', 'missing', 'future', 'backwards']

function alertLine(alert: TrialReport['alerts'][number]): string {
  const { timeMs, kind, device, metric, value, score, expected, found, limit } = alert
  const told = (finding: unknown) =>
    typeof finding !== 'number'
      ? String(finding)
      : timeFaults.includes(kind as string)
        ? `${short(finding / 1000)} s`
        : short(finding)
  const details = [
    value === undefined ? '' : `value ${value}`,
    typeof expected === 'number' ? `expected ${short(expected)}` : '',
    typeof score === 'number' ? `score ${score.toFixed(2)}` : '',
    typeof found === 'number' && found !== value ? `found ${told(found)}` : '',
    limit === undefined ? '' : `limit ${Array.isArray(limit) ? limit.join(' to ') : told(limit)}`,
  ].filter((detail) => detail !== '')
  return `${formatTime(timeMs as number)} ${kind}, ${device} ${metric}: ${details.join(', ')}`
}

const count = (number: number) => number.toLocaleString('en')
const short = (number: number) => String(Number(number.toPrecision(4)))
