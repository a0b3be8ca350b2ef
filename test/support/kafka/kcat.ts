import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

export interface KcatRecord {
  partition: number
  offset: number
  /** ms since 1970 */
  time: number
  key: string
  value: string
  headers: Record<string, string>
}

/** What kcat reads of a topic, from its beginning to its end. @param kcat its path */
export async function kcatRecords(
  kcat: string,
  broker: string,
  topic: string,
): Promise<KcatRecord[]> {
  const args = ['-b', broker, '-C', '-t', topic, '-e', '-q', '-J']
  const { stdout } = await promisify(execFile)(kcat, args, { maxBuffer: 2 ** 26 })
  return stdout
    .split('\n')
    .filter(Boolean)
    .map((line) => {
      const { partition, offset, ts, key, payload, headers = [] } = JSON.parse(line)
      const named: Record<string, string> = {}
      for (let i = 0; i < headers.length; i += 2) named[headers[i]] = headers[i + 1]
      return { partition, offset, time: ts, key, value: payload, headers: named }
    })
}
