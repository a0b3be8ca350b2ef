import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { setInterval as every } from 'node:timers/promises'
import { cleanUp } from '../../support/clean-up.ts'
import { absent } from '../../support/needs.ts'

/** Memory that a process has to itself, megabytes: RSS is mostly pages of the executable, which the kernel can drop. */
export function anonymousMB(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return Number(/^RssAnon:\s+(\d+) kB$/m.exec(status)![1]) / 1024
}

/** Looks at a process twice a second for so long. */
export async function watchMemory(pid: number, seconds: number): Promise<number[]> {
  const seen: number[] = []
  for await (const _ of every(500)) {
    seen.push(anonymousMB(pid))
    if (seen.length >= seconds * 2) break
  }
  return seen
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)]!
}

/** Medians of the third and of the last quarter: where memory is flat they are the same. */
export function thirdAndLast(seen: readonly number[]): [third: number, last: number] {
  const quarter = Math.floor(seen.length / 4)
  return [median(seen.slice(-2 * quarter, -quarter)), median(seen.slice(-quarter))]
}

/** A limit on all memory of a process, file pages included, as a container or systemd sets it. */
export class MemoryLimit {
  readonly #folder: string

  private constructor(folder: string) {
    this.#folder = folder
  }

  /** Undefined where the kernel's memory controller cannot be had and the test was skipped. */
  static make(t: TestContext, megabytes: number): MemoryLimit | undefined {
    if (process.getuid?.() !== 0) {
      t.skip('needs root, to limit memory')
      return undefined
    }
    const name = `headgate-test-${process.pid}`
    // Version 1 has a hierarchy for each controller, version 2 one for all.
    const old = existsSync('/sys/fs/cgroup/memory/memory.limit_in_bytes')
    const parent = old ? '/sys/fs/cgroup/memory' : '/sys/fs/cgroup'
    const folder = join(parent, name)
    try {
      if (!old) writeFileSync(join(parent, 'cgroup.subtree_control'), '+memory')
      mkdirSync(folder)
      cleanUp(t, () => rmdirSync(folder))
      const file = old ? 'memory.limit_in_bytes' : 'memory.max'
      writeFileSync(join(folder, file), String(megabytes * 2 ** 20))
    } catch (error) {
      absent(t, `needs a memory controller in ${parent}: ${(error as Error).message}`)
      return undefined
    }
    return new MemoryLimit(folder)
  }

  /** Runs a program under it and becomes it. */
  get through(): readonly string[] {
    return ['/bin/sh', '-c', `echo $$ >${this.#folder}/cgroup.procs && exec "$@"`, 'sh']
  }

  /** Most that was used at a time, megabytes. */
  get peakMB(): number {
    for (const file of ['memory.max_usage_in_bytes', 'memory.peak'])
      if (existsSync(join(this.#folder, file)))
        return Number(readFileSync(join(this.#folder, file), 'utf8')) / 2 ** 20
    return Number.NaN
  }
}
