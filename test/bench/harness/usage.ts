import { readFileSync } from 'node:fs'

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

/** Looks at a process's own memory every so often until it is asked for the most that it saw. */
export function watchMemory(pid: number, everyMs = 20): { peakMb(): number } {
  let peakMb = 0
  const timer = setInterval(() => {
    peakMb = Math.max(peakMb, memoryMb(pid))
  }, everyMs)
  return {
    peakMb() {
      clearInterval(timer)
      return peakMb
    },
  }
}
