import { readFile } from 'node:fs/promises'
import { freemem, hostname, loadavg, totalmem } from 'node:os'
import { sleep } from '../shared/clock.ts'
import type { Clock } from '../shared/ports.ts'
import type { Sample } from '../shared/trace.ts'

const periodMs = 1000

/** This machine as a device: its own load, memory and, where it can tell, temperature, once a second. */
export async function* hostMetrics(clock: Clock, signal: AbortSignal): AsyncGenerator<Sample[]> {
  const device = hostname().replace(/[/+#]/g, '-') || 'host'
  while (!signal.aborted) {
    const timeMs = clock.wallMs()
    const values: [string, string | undefined][] = [
      ['load', loadavg()[0]!.toFixed(2)],
      ['memory_used', String(await usedMemory())],
      ['temperature', await temperature()],
    ]
    yield values.flatMap(([metric, value]) =>
      value === undefined ? [] : [{ device, metric, timeMs, timeNanos: 0, value, atMs: timeMs }],
    )
    await sleep(clock, periodMs, signal).catch(() => {})
  }
}

/** Bytes that are not available to programs; Linux counts caches as available. */
async function usedMemory(): Promise<number> {
  const text = await readFile('/proc/meminfo', 'utf8').catch(() => '')
  const available = /^MemAvailable:\s+(\d+) kB$/m.exec(text)?.[1]
  return totalmem() - (available === undefined ? freemem() : Number(available) * 1024)
}

/** Degrees Celsius of the first thermal zone. */
async function temperature(): Promise<string | undefined> {
  const text = await readFile('/sys/class/thermal/thermal_zone0/temp', 'utf8').catch(() => '')
  const milli = Number(text.trim())
  return text.trim() === '' || !Number.isFinite(milli) ? undefined : (milli / 1000).toFixed(1)
}
