import { createReadStream } from 'node:fs'
import { open, stat } from 'node:fs/promises'
import { basename } from 'node:path'
import { UserError } from './failure.ts'
import { parseTime, valueText } from './trace/cell.ts'
import { type CsvLine, CsvReader, splitCells } from './trace/csv.ts'
import { type Sample, topicProblem } from './trace/sample.ts'

export { parseTime, valueText } from './trace/cell.ts'
export { csvCell } from './trace/csv.ts'
export { type Sample, type Samples, timeText, topicProblem } from './trace/sample.ts'

/** A row that is skipped. `line` counts from 1, the header being line 1. */
export interface BadRow {
  file: string
  line: number
  reason: string
}

/** A row as it stands. */
export interface TraceRow {
  /** Counts from 1, the header being line 1. */
  line: number
  /** The time as written; empty where the row has none. */
  time: string
  /** Several where a row has several metrics; none where something is wrong with it. */
  samples: Sample[]
  /** Their values as written; that of a row with something wrong, where a row has one value. */
  cells: string[]
  problem?: string
}

/** Longest header, bytes. */
const maxHeaderBytes = 64 * 1024

type Shape =
  | { kind: 'single'; time: number; value: number }
  | { kind: 'wide'; time: number; metrics: { name: string; column: number }[] }
  | { kind: 'long'; time: number; device: number; metric: number; value: number }

/**
 * A recorded trace: a CSV file in one of three shapes, told apart by its header:
 *
 *     timestamp,value                   device is the file's name without .csv, metric is `value`
 *     timestamp,temp,hum,…              device is the file's name, one metric a column, `,` or `;`
 *     timestamp,device,metric,value
 *
 * Rows come as they stand: a repeated or backward timestamp is data.
 */
export class Trace {
  readonly file: string
  /** From the file's name; `long` traces name devices in their rows. */
  readonly device: string
  readonly #shape: Shape
  readonly #delimiter: ',' | ';'
  readonly #columns: number

  private constructor(file: string, shape: Shape, delimiter: ',' | ';', columns: number) {
    this.file = file
    this.device = deviceOf(file)
    this.#shape = shape
    this.#delimiter = delimiter
    this.#columns = columns
  }

  /** Reads the header. @throws UserError in one line when the file cannot be read or is no trace */
  static async open(file: string): Promise<Trace> {
    const header = await readHeader(file)
    const commas = columnNames(header, ',')
    const [delimiter, names] =
      commas.length > 1 ? ([',', commas] as const) : ([';', columnNames(header, ';')] as const)
    const shape = shapeOf(names)
    if (typeof shape === 'string') throw new UserError(`${file}: ${shape}`)
    if (shape.kind !== 'long') {
      const problem = topicProblem('the device (file name)', deviceOf(file))
      if (problem) throw new UserError(`${file}: ${problem}: rename the file`)
    }
    return new Trace(file, shape, delimiter, names.length)
  }

  /** Whether rows name their device. */
  get namesDevices(): boolean {
    return this.#shape.kind === 'long'
  }

  /** Whether a row is one value of one series, which the file is all about. */
  get single(): boolean {
    const shape = this.#shape
    return shape.kind === 'single' || (shape.kind === 'wide' && shape.metrics.length === 1)
  }

  /** The samples in row order, as they are read; memory does not grow with the file. */
  async *samples(onBadRow: (row: BadRow) => void = () => {}): AsyncGenerator<Sample[]> {
    for await (const rows of this.rows()) {
      const out: Sample[] = []
      for (const { line, samples, problem } of rows) {
        for (const sample of samples) out.push(sample)
        if (problem !== undefined) onBadRow({ file: this.file, line, reason: problem })
      }
      if (out.length > 0) yield out
    }
  }

  /** The rows as they stand, bad ones too. */
  async *rows(): AsyncGenerator<TraceRow[]> {
    const csv = new CsvReader(this.#delimiter)
    const decoder = new TextDecoder()
    let atMs = Number.NEGATIVE_INFINITY
    const take = (lines: CsvLine[]): TraceRow[] => {
      const rows: TraceRow[] = []
      for (const line of lines) {
        if (line.line === 1) continue
        const row: TraceRow = { line: line.line, time: '', samples: [], cells: [] }
        this.#read(line, row)
        for (const sample of row.samples) sample.atMs = atMs = Math.max(atMs, sample.timeMs)
        rows.push(row)
      }
      return rows
    }
    const stream = createReadStream(this.file)
    try {
      for await (const chunk of stream)
        yield take(csv.feed(decoder.decode(chunk as Buffer, { stream: true })))
      yield take([...csv.feed(decoder.decode()), ...csv.end()])
    } catch (cause) {
      throw unreadable(this.file, cause)
    } finally {
      stream.destroy()
    }
  }

  /** Reads the row's samples, or says what is wrong with it. */
  #read({ cells, problem }: CsvLine, row: TraceRow): void {
    row.time = cells[this.#shape.time] ?? ''
    problem ??= this.#readCells(cells, row)
    if (problem === undefined) return
    const value = this.#valueColumn
    row.problem = problem
    row.samples = []
    row.cells = value === undefined ? [] : [cells[value] ?? '']
  }

  /** Where a row has its one value. */
  get #valueColumn(): number | undefined {
    const shape = this.#shape
    if (shape.kind !== 'wide') return shape.value
    return this.single ? shape.metrics[0]!.column : undefined
  }

  #readCells(cells: string[], row: TraceRow): string | undefined {
    const shape = this.#shape
    if (cells.length !== this.#columns)
      return `${cells.length} cells where the header has ${this.#columns}`
    const time = parseTime(row.time)
    if (!time) return `${JSON.stringify(row.time.slice(0, 40))} is no time`
    const decimalComma = this.#delimiter === ';'
    const add = (device: string, metric: string, cell: string) => {
      row.samples.push({ device, metric, ...time, value: valueText(cell, decimalComma), atMs: 0 })
      row.cells.push(cell)
    }
    switch (shape.kind) {
      case 'wide':
        for (const { name, column } of shape.metrics) {
          const cell = cells[column]!
          if (cell.trim() !== '') add(this.device, name, cell)
        }
        return undefined
      case 'single':
        if (cells[shape.value]!.trim() === '') return 'no value'
        add(this.device, 'value', cells[shape.value]!)
        return undefined
      case 'long': {
        const device = cells[shape.device]!.trim()
        const metric = cells[shape.metric]!.trim()
        const problem = topicProblem('the device', device) ?? topicProblem('the metric', metric)
        if (problem) return problem
        if (cells[shape.value]!.trim() === '') return 'no value'
        add(device, metric, cells[shape.value]!)
        return undefined
      }
    }
  }
}

/** Rows per device and metric, in order of first appearance, and the bad ones: a whole pass over the file. */
export interface Survey {
  devices: Map<string, Map<string, number>>
  badRows: number
}

export async function survey(traces: readonly Trace[]): Promise<Survey> {
  const devices: Survey['devices'] = new Map()
  let badRows = 0
  for (const trace of traces)
    for await (const samples of trace.samples(() => badRows++))
      for (const { device, metric } of samples) {
        const metrics = devices.get(device) ?? new Map<string, number>()
        devices.set(device, metrics)
        metrics.set(metric, (metrics.get(metric) ?? 0) + 1)
      }
  return { devices, badRows }
}

function deviceOf(file: string): string {
  return basename(file).replace(/\.csv$/i, '')
}

/** Trimmed names of a header that has a `timestamp` among them; none when it has not. */
function columnNames(header: string, delimiter: string): string[] {
  const cells = splitCells(header, delimiter)
  const names = Array.isArray(cells) ? cells.map((cell) => cell.trim()) : []
  return names.some((name) => name.toLowerCase() === 'timestamp') ? names : []
}

/** The shape, or what is wrong with the header. */
function shapeOf(names: readonly string[]): Shape | string {
  const lower = names.map((name) => name.toLowerCase())
  const column = (name: string) => lower.indexOf(name)
  const time = column('timestamp')
  if (time < 0 || names.length < 2)
    return 'unknown header: expected timestamp,value or timestamp,<metric>,… or timestamp,device,metric,value'
  const twice = names.find((name, i) => names.indexOf(name) !== i)
  if (twice !== undefined) return `two columns are named ${JSON.stringify(twice)}`
  const [device, metric, value] = [column('device'), column('metric'), column('value')]
  if (device >= 0 && metric >= 0 && value >= 0) {
    if (names.length === 4) return { kind: 'long', time, device, metric, value }
    return 'unknown header: timestamp,device,metric,value takes no further column'
  }
  if (names.length === 2 && value >= 0) return { kind: 'single', time, value }
  const metrics = names.map((name, i) => ({ name, column: i })).filter((_, i) => i !== time)
  for (const { name, column: at } of metrics) {
    const problem = topicProblem(`the name of column ${at + 1}`, name)
    if (problem) return problem
  }
  return { kind: 'wide', time, metrics }
}

async function readHeader(file: string): Promise<string> {
  try {
    if (!(await stat(file)).isFile())
      throw new UserError(`${file}: not a regular file: a trace is read more than once`, {
        exitCode: 2,
      })
    await using handle = await open(file)
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(maxHeaderBytes), 0)
    const text = new TextDecoder().decode(buffer.subarray(0, bytesRead))
    return (text.split('\n', 1)[0] ?? '').replace(/\r$/, '')
  } catch (cause) {
    throw unreadable(file, cause)
  }
}

function unreadable(file: string, cause: unknown): unknown {
  const { code } = cause as NodeJS.ErrnoException
  if (code === undefined) return cause
  const why =
    code === 'ENOENT'
      ? 'no such file: check --trace'
      : code === 'EACCES'
        ? 'no permission to read it'
        : `cannot be read (${code})`
  return new UserError(`${file}: ${why}`, { exitCode: 2, cause })
}
