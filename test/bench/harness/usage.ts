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

/** Memory of its own that a process has, or had at most since it started; megabytes. */
export function memoryMb(pid: number): { anonymous: number; peak: number } {
  const text = readFileSync(`/proc/${pid}/status`, 'latin1')
  const read = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)?.[1] ?? 0) / 1_000
  return { anonymous: read('RssAnon'), peak: read('VmHWM') }
}

/** Looks at a process's own memory until it is stopped. */
export function watchMemory(pid: number, everyMs = 50): { stop(): { peakMb: number[] } } {
  const peakMb: number[] = []
  const timer = setInterval(() => {
    try {
      peakMb.push(memoryMb(pid).anonymous)
    } catch {
      // It has ended.
    }
  }, everyMs)
  return {
    stop() {
      clearInterval(timer)
      return { peakMb }
    },
  }
}
