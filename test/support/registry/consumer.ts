import { execFile } from 'node:child_process'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { pipFolder, python } from '../pip.ts'

const run = promisify(execFile)
const requirements = fileURLToPath(new URL('requirements.txt', import.meta.url))
const program = fileURLToPath(new URL('consumer.py', import.meta.url))

export interface Consumed {
  key: string
  /** ms since 1970 */
  time: number
  headers: Record<string, string>
  /** Integers beyond 2^53 and numbers that are not finite as text. */
  value: Record<string, unknown>
}

/** Reads so many records of a topic from its beginning. */
export type Consume = (options: {
  brokers: readonly string[]
  registry: string
  topic: string
  format: 'avro' | 'json-schema'
  count: number
}) => Promise<Consumed[]>

/**
 * Confluent's own client for Python, which finds schemas by the numbers that records have.
 *
 * @returns undefined when it cannot be had and the test was skipped
 */
export async function stockConsumer(t: Pick<TestContext, 'skip'>): Promise<Consume | undefined> {
  const folder = await pipFolder(t, requirements)
  if (folder === undefined) return undefined
  return async ({ brokers, registry, topic, format, count }) => {
    const options = {
      env: { ...process.env, PYTHONPATH: folder, TZ: 'UTC' },
      timeout: 120_000,
      maxBuffer: 2 ** 26,
    }
    const args = [program, brokers.join(), registry, topic, format, String(count)]
    const { stdout } = await run(python, args, options)
    return stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as Consumed)
  }
}
