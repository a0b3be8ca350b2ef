import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { Clock, Random } from './ports.ts'

/** The machine's own clocks. Monotonic time counts since boot, so that it goes on over a restart. */
export const systemClock: Clock = {
  wallMs: () => Date.now(),
  monotonicMs: () => Number(process.hrtime.bigint() / 1000n) / 1000,
  timer(ms, callback) {
    const timeout = setTimeout(callback, Math.min(Math.max(0, ms), 2 ** 31 - 1))
    return () => clearTimeout(timeout)
  },
}

export const systemRandom: Random = {
  bytes: (length) => new Uint8Array(randomBytes(length)),
  uniform: () => Math.random(),
}

/** 16 bytes that change with every boot of the machine; random where the kernel does not say. */
export function bootId(): Uint8Array {
  try {
    const text = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8')
    const bytes = Buffer.from(text.replace(/[^0-9a-f]/gi, ''), 'hex')
    if (bytes.length === 16) return new Uint8Array(bytes)
  } catch {
    // Not Linux, or /proc is hidden: a boot is then as long as the process.
  }
  return systemRandom.bytes(16)
}
