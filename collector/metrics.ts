import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client'
import { streams as streamNames } from '../shared/reading.ts'
import type { Gate } from './collector.ts'
import type { Ingest } from './ingest/ingest.ts'
import type { LogEngine } from './log/engine.ts'
import type { Sinks } from './sinks/sinks.ts'
import type { StreamService } from './streams.ts'

interface Sources {
  log: LogEngine
  ingest: Ingest
  gate: Gate
  streams: StreamService
  sinks: Sinks
}

/** Figures for Prometheus, read where they are counted at each scraping. */
export class Metrics {
  readonly #registry = new Registry()

  constructor({ log, ingest, gate, streams, sinks }: Sources) {
    const { counts } = ingest
    this.#counter('batches_total', 'Batches by answer', 'answer', () => counts.answers)
    this.#counter(
      'alarms_total',
      'Accepted batches that raise an alarm',
      'alarm',
      () => counts.alarms,
    )
    this.#counter('records_total', 'Records accepted, by stream', 'stream', () => counts.records)
    this.#counter('body_bytes_total', 'Bytes of accepted bodies', undefined, () => counts.bytes)
    this.#counter(
      'turned_away_total',
      'Requests told to come back',
      undefined,
      () => gate.turnedAway,
    )
    this.#gauge('in_flight_bytes', 'Bytes of bodies in flight', () => gate.takenBytes)
    this.#gauge('readers', 'Readers being served', () => streams.readers)
    this.#gauge('log_writable', '1 while the log takes writes', () =>
      log.state === 'open' ? 1 : 0,
    )
    this.#streamGauges(log)
    this.#sinkFigures(sinks)
    collectDefaultMetrics({ register: this.#registry })
  }

  get contentType(): string {
    return this.#registry.contentType
  }

  text(): Promise<string> {
    return this.#registry.metrics()
  }

  #counter(
    name: string,
    help: string,
    label: string | undefined,
    read: () => number | Record<string, number>,
  ): void {
    new Counter({
      name: `headgate_collector_${name}`,
      help,
      labelNames: label ? [label] : [],
      registers: [this.#registry],
      collect() {
        this.reset()
        const values = read()
        if (typeof values === 'number') this.inc(values)
        else for (const [key, value] of Object.entries(values)) this.inc({ [label!]: key }, value)
      },
    })
  }

  #gauge(name: string, help: string, read: () => number): void {
    new Gauge({
      name: `headgate_collector_${name}`,
      help,
      registers: [this.#registry],
      collect() {
        this.set(read())
      },
    })
  }

  #streamGauges(log: LogEngine): void {
    const gauge = (name: string, help: string, of: 'records' | 'bytes' | 'next') =>
      new Gauge({
        name: `headgate_collector_log_${name}`,
        help,
        labelNames: ['stream'],
        registers: [this.#registry],
        async collect() {
          const statistics = await log.statistics()
          for (const stream of streamNames) this.set({ stream }, statistics[stream][of])
        },
      })
    gauge('records', 'Records in the log', 'records')
    gauge('bytes', 'Bytes of bodies in the log', 'bytes')
    gauge('next_offset', 'Offset of the next record', 'next')
  }

  #sinkFigures(sinks: Sinks): void {
    type Figure = 'behind' | 'written' | 'refused' | 'failures'
    const figure = (Kind: typeof Counter | typeof Gauge, name: string, help: string, of: Figure) =>
      new Kind({
        name: `headgate_collector_sink_${name}`,
        help,
        labelNames: ['sink'],
        registers: [this.#registry],
        async collect() {
          this.reset()
          for (const status of await sinks.status()) this.inc({ sink: status.name }, status[of])
        },
      })
    figure(Gauge, 'behind', 'Offsets between a sink and the end of its stream', 'behind')
    figure(Counter, 'written_total', 'Records written', 'written')
    figure(Counter, 'refused_total', 'Records put into the dead letter', 'refused')
    figure(Counter, 'failures_total', 'Times that a sink failed and tried again', 'failures')
  }
}
