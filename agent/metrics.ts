import { createServer } from 'node:http'
import { Counter, Gauge, Registry } from 'prom-client'
import { UserError } from '../shared/failure.ts'
import { ledgerWords } from '../shared/ledger.ts'
import { lanes } from '../shared/reading.ts'
import type { Agent } from './agent.ts'

/** Ledger words as Prometheus names them: one counter each, `buffered` a gauge. */
const ledgerNames = {
  received: 'received_total',
  forwarded: 'forwarded_total',
  suppressed: 'suppressed_total',
  absorbed: 'absorbed_total',
  quarantined: 'quarantined_total',
  buffered: 'buffered',
  evicted: 'evicted_total',
  deduplicated: 'deduplicated_total',
  lostCorrupt: 'lost_corrupt_total',
} as const

/**
 * Serves `/metrics`, `/healthz` and `/readyz` until disposed.
 *
 * @throws UserError when the port is taken
 */
export async function openMetrics(
  agent: Agent,
  { host, port }: { host: string; port: number },
): Promise<AsyncDisposable> {
  const registry = new Registry()
  fill(registry, agent)
  const server = createServer((incoming, response) => {
    const path = incoming.url?.split('?')[0]
    if (path === '/metrics')
      registry.metrics().then(
        (text) => response.writeHead(200, { 'content-type': registry.contentType }).end(text),
        () => response.writeHead(500).end(),
      )
    else if (path === '/healthz') response.writeHead(200).end('ok\n')
    else if (path === '/readyz') {
      const ready = agent.status?.source.phase === 'connected'
      response.writeHead(ready ? 200 : 503).end(ready ? 'ready\n' : 'the broker is not connected\n')
    } else response.writeHead(404).end('one of /metrics, /healthz, /readyz\n')
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) =>
      reject(
        new UserError(
          cause.code === 'EADDRINUSE'
            ? `metrics: port ${port} is taken: stop what uses it, or set metrics.port (0 takes a free one)`
            : `metrics: cannot listen on ${host}:${port} (${cause.code}): check metrics.host and metrics.port`,
          { cause },
        ),
      ),
    )
    server.listen(port, host, resolve)
  })
  return {
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** Every figure is read from the agent's status at scraping: nothing is counted twice. */
function fill(registry: Registry, agent: Agent): void {
  const counter = (name: string, help: string, read: () => number | undefined) =>
    new Counter({
      name: `headgate_agent_${name}`,
      help,
      registers: [registry],
      collect() {
        this.reset()
        this.inc(read() ?? 0)
      },
    })
  const gauge = (name: string, help: string, read: () => number | undefined) =>
    new Gauge({
      name: `headgate_agent_${name}`,
      help,
      registers: [registry],
      collect() {
        this.set(read() ?? 0)
      },
    })
  for (const word of ledgerWords) {
    const make = word === 'buffered' ? gauge : counter
    make(
      `readings_${ledgerNames[word]}`,
      `Readings ${word} (ledger).`,
      () => agent.status?.ledger[word],
    )
  }
  counter(
    'readings_received_qos0_total',
    'Of the readings received, those at QoS 0.',
    () => agent.status?.totals.receivedQos0,
  )
  gauge('source_connected', '1 while the broker is connected.', () =>
    agent.status?.source.phase === 'connected' ? 1 : 0,
  )
  gauge(
    'source_unacked_bytes',
    'Bytes received and not yet acknowledged.',
    () => agent.status?.source.unackedBytes,
  )
  counter(
    'uplink_batches_total',
    'Batches sent, repeats included.',
    () => agent.status?.uplink.batches,
  )
  counter(
    'uplink_retries_total',
    'Batches not answered durably.',
    () => agent.status?.uplink.retries,
  )
  counter(
    'uplink_duplicates_total',
    'Batches that the collector held already.',
    () => agent.status?.uplink.duplicates,
  )
  counter(
    'uplink_holes_total',
    'Times that the collector held less than was delivered.',
    () => agent.status?.uplink.holes,
  )
  counter(
    'uplink_forks_total',
    'Times that the collector held another history.',
    () => agent.status?.uplink.forks,
  )
  counter(
    'uplink_refused_total',
    'Readings that the collector refused.',
    () => agent.status?.uplink.refused,
  )
  counter(
    'uplink_wire_bytes_total',
    'Bytes of request bodies sent, answered or not.',
    () => agent.status?.uplink.wireBytes,
  )
  counter(
    'store_reopened_total',
    'Times that the store failed and was opened again.',
    () => agent.status?.reopened,
  )
  gauge(
    'filter_series',
    'Series that a filter rule keeps state for.',
    () => agent.status?.filter.series,
  )
  counter(
    'filter_beyond_max_series_total',
    'Readings that passed since their rule has as many series as it may.',
    () => agent.status?.filter.beyondMaxSeries,
  )
  counter(
    'filter_late_total',
    'Readings that came behind their window and passed.',
    () => agent.status?.filter.late,
  )
  gauge('tail_bytes', 'Bytes of raw readings kept after delivery.', () => agent.status?.tail?.bytes)
  new Gauge({
    name: 'headgate_agent_outbox_bytes',
    help: 'Bytes waiting in the outbox.',
    labelNames: ['lane'],
    registers: [registry],
    collect() {
      for (const lane of lanes) this.set({ lane }, agent.status?.lanes[lane].bytes ?? 0)
    },
  })
  new Gauge({
    name: 'headgate_agent_outbox_oldest_seconds',
    help: 'Age of the oldest commit that waits, by the wall clock; 0 when nothing does.',
    labelNames: ['lane'],
    registers: [registry],
    collect() {
      for (const lane of lanes) {
        const oldestMs = agent.status?.lanes[lane].oldestMs
        this.set({ lane }, oldestMs === undefined ? 0 : Math.max(0, Date.now() - oldestMs) / 1000)
      }
    },
  })
}
