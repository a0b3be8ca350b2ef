import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const command = fileURLToPath(new URL('../../headgate.mjs', import.meta.url))

export interface Tally {
  /** Values that are there, each counted once. */
  distinct: number
  repeated: number
}

/**
 * What of a `Flow` is in a collector's log, by gateway: decoded, or in quarantine, where a configuration
 * that could not read it has put it.
 */
export async function tally(data: string): Promise<Map<string, Tally>> {
  const seen = new Map<string, Set<string>>()
  const found = new Map<string, Tally>()
  const count = (gateway: string, what: string) => {
    const known = seen.get(gateway) ?? new Set()
    seen.set(gateway, known)
    const sum = found.get(gateway) ?? { distinct: 0, repeated: 0 }
    found.set(gateway, sum)
    if (known.has(what)) sum.repeated += 1
    else sum.distinct += 1
    known.add(what)
  }
  for await (const [, agent, , , , device, , , value] of rows(data, 'readings'))
    count(agent!, `${device} ${Number(value)}`)
  for await (const [, agent, , , , topic, , , , payload] of rows(data, 'quarantine')) {
    count(agent!, `${topic!.split('/')[2]} ${Buffer.from(payload!, 'base64')}`)
  }
  return found
}

/** Cells of a stream's lines, none of which are quoted here. */
async function* rows(data: string, stream: string): AsyncIterable<string[]> {
  const child = spawn(process.execPath, [command, 'log', 'cat', '--data', data, '--stream', stream])
  const ended = once(child, 'exit')
  let head = true
  for await (const line of createInterface({ input: child.stdout })) {
    if (!head) yield line.split(',')
    head = false
  }
  const [code] = await ended
  if (code !== 0) throw new Error(`log cat ended with ${code}`)
}
