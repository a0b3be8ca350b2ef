import { formatTime } from '../../shared/time-text.ts'
import type { SeriesTrial } from './series-trial.ts'

/** Panels drawn at most: beyond that nobody looks. */
const maxPanels = 100
const width = 1200
const height = 140
const margin = { left: 8, top: 20, bottom: 18 }

export interface PlottedAlert {
  device: string
  metric: string
  kind: string
  state: string
  timeMs: number
}

/**
 * Draws each series with what was kept of it and when alerts were raised, as SVG: the recording in grey,
 * kept readings in blue, anomalies as red lines and faults as orange ones.
 */
export function plot(series: readonly SeriesTrial[], alerts: readonly PlottedAlert[]): string {
  const numeric = series.filter(({ values }) => values.some((value) => Number.isFinite(value)))
  const drawn = numeric.slice(0, maxPanels)
  const panels = drawn.map((one, index) => {
    const own = alerts.filter(
      ({ device, metric, state }) =>
        state === 'raised' && device === one.series.device && metric === one.series.metric,
    )
    return `<g transform="translate(0 ${index * height})">${panel(one, own)}</g>`
  })
  const left = numeric.length - drawn.length
  const note =
    left > 0
      ? text(margin.left, drawn.length * height + 14, `${left} more series are not drawn`)
      : ''
  const total = Math.max(1, drawn.length) * height + (left > 0 ? 20 : 0)
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${total}" viewBox="0 0 ${width} ${total}" font-family="sans-serif" font-size="11">
<rect width="100%" height="100%" fill="white"/>
${panels.join('\n')}${note}
</svg>
`
}

function panel(one: SeriesTrial, alerts: readonly PlottedAlert[]): string {
  const { series, timesMs, values } = one
  const [from, to] = extent(timesMs)
  const [least, most] = extent(values)
  const bottom = height - margin.bottom
  const x = (timeMs: number) =>
    margin.left + ((width - 2 * margin.left) * (timeMs - from)) / (to - from || 1)
  const y = (value: number) =>
    bottom - ((bottom - margin.top) * (value - least)) / (most - least || 1)
  const at = (index: number) => `${x(timesMs[index]!).toFixed(1)} ${y(values[index]!).toFixed(1)}`

  const all = outline(timesMs, values, x)
  const kept: number[] = []
  for (let i = 0; i < values.length; i++)
    if (one.isKept(i) && Number.isFinite(values[i]!)) kept.push(i)
  const thinned = kept.length < values.length
  const shown = thinned ? outlineOf(kept, timesMs, values, x) : []
  const dots = shown.map((index) => `M${at(index)}h0`).join('')
  const lines = alerts.map(({ kind, timeMs }) => {
    const place = x(timeMs).toFixed(1)
    const colour = kind === 'anomaly' ? '#d00' : '#e80'
    return `<path d="M${place} ${margin.top}V${bottom}" stroke="${colour}"><title>${safe(`${kind} ${formatTime(timeMs)}`)}</title></path>`
  })
  const unit = series.unit === undefined ? '' : ` (${series.unit})`
  const title =
    `${series.device} ${series.metric}${unit}: ${number(least)} to ${number(most)}, ` +
    `${kept.length} of ${values.length} kept, ${alerts.length} alerts`
  return [
    lines.join(''),
    `<path d="M${all.map(at).join('L')}" fill="none" stroke="#999" stroke-width="0.8"/>`,
    thinned
      ? `<path d="M${shown.map(at).join('L')}" fill="none" stroke="#06c" stroke-width="0.8"/>`
      : '',
    thinned ? `<path d="${dots}" stroke="#06c" stroke-width="3" stroke-linecap="round"/>` : '',
    text(margin.left, 14, title),
    text(margin.left, height - 5, formatTime(from)),
    `<text x="${width - margin.left}" y="${height - 5}" text-anchor="end">${formatTime(to)}</text>`,
  ].join('\n')
}

/** Indexes that draw the same line: in each column of pixels the first, least, most and last value. */
function outline(
  timesMs: readonly number[],
  values: readonly number[],
  x: (timeMs: number) => number,
): number[] {
  const finite: number[] = []
  for (let i = 0; i < values.length; i++) if (Number.isFinite(values[i]!)) finite.push(i)
  return outlineOf(finite, timesMs, values, x)
}

function outlineOf(
  indexes: readonly number[],
  timesMs: readonly number[],
  values: readonly number[],
  x: (timeMs: number) => number,
): number[] {
  if (indexes.length <= 4 * width) return [...indexes]
  const out: number[] = []
  for (let start = 0; start < indexes.length; ) {
    const column = Math.floor(x(timesMs[indexes[start]!]!))
    let least = start
    let most = start
    let end = start
    for (; end < indexes.length && Math.floor(x(timesMs[indexes[end]!]!)) === column; end++) {
      if (values[indexes[end]!]! < values[indexes[least]!]!) least = end
      if (values[indexes[end]!]! > values[indexes[most]!]!) most = end
    }
    for (const place of [...new Set([start, least, most, end - 1])].sort((a, b) => a - b))
      out.push(indexes[place]!)
    start = end
  }
  return out
}

function extent(numbers: readonly number[]): [least: number, most: number] {
  let least = Infinity
  let most = -Infinity
  for (const one of numbers)
    if (Number.isFinite(one)) {
      least = Math.min(least, one)
      most = Math.max(most, one)
    }
  return [least, most]
}

function text(x: number, y: number, content: string): string {
  return `<text x="${x}" y="${y}">${safe(content)}</text>`
}

function number(value: number): string {
  return String(Number(value.toPrecision(6)))
}

function safe(content: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: XML forbids them
  const clean = content.replace(/[\u0000-\u001f]/g, ' ')
  return clean.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;')
}
