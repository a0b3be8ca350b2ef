import { readFileSync } from 'node:fs'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/** Ticks of /proc/<pid>/stat in a second: USER_HZ is 100 wherever Node runs on Linux. */
const ticksPerSecond = 100

/** CPU seconds that a process has used so far, user and system, all its threads. */
export function cpuSeconds(pid: number): number {
  const text = readFileSync(`/proc/${pid}/stat`, 'latin1')
  // The name, in brackets, may hold anything.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
}

/** Memory of its own that a process has (RssAnon), megabytes. */
export function memoryMb(pid: number): number {
  const text = readFileSync(`/proc/${pid}/status`, 'latin1')
  return Number(/^RssAnon:\s+(\d+) kB/m.exec(text)?.[1] ?? 0) / 1_000
}

setFlagsFromString('--expose-gc')
/** Clears up behind one side, so that the next one in this process is not charged for it. */
export const collectGarbage: () => void = runInNewContext('gc')

export interface SeenMemory {
  /** The most that was seen. */
  peakMb: number
  /** What it grew by, from the most in the second quarter of the time to the most in the last. */
  grownMb: number
}

/** Looks at a process's own memory every so often until it is told to end. */
export function watchMemory(pid: number, everyMs = 20): { end(): SeenMemory } {
  const seen: number[] = []
  const timer = setInterval(() => seen.push(memoryMb(pid)), everyMs)
  return {
    end() {
      clearInterval(timer)
      const quarter = Math.ceil(seen.length / 4)
      const second = Math.max(0, ...seen.slice(quarter, 2 * quarter))
      const last = Math.max(0, ...seen.slice(-quarter))
      return { peakMb: Math.max(0, ...seen), grownMb: last - second }
    },
  }
}
