import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { Collector } from '../../collector/collector.ts'
import { type CollectorConfig, loadCollectorConfig } from '../../collector/config.ts'
import type { Encoding } from '../../shared/batch.ts'
import type { TestBatch } from './batches.ts'
import { cleanUp } from './clean-up.ts'
import { silentLog } from './silent-log.ts'
import { temporaryDirectory } from './temporary.ts'

/** A collector.yaml in `folder`, with its data beside it, on a free port. */
export async function collectorConfig(
  folder: string,
  more: { http?: string; rest?: string } = {},
): Promise<CollectorConfig> {
  const file = join(folder, 'collector.yaml')
  const http = `http: { host: 127.0.0.1, port: 0, ${more.http ?? ''} }`
  await writeFile(file, `data: ./data\n${http}\nauth: { mode: open }\n${more.rest ?? ''}\n`)
  return loadCollectorConfig(file, {})
}

/** A running collector on a folder of its own, closed when the test ends. */
export async function startCollector(
  t: TestContext,
  more: { http?: string; rest?: string } = {},
): Promise<Collector> {
  const config = await collectorConfig(await temporaryDirectory(t), more)
  const collector = await Collector.open(config, silentLog)
  cleanUp(t, () => collector.close())
  return collector
}

export interface Answer {
  status: number
  headers: Headers
  body: Record<string, unknown>
}

/** Sends a body as an agent does. */
export async function post(
  url: string,
  body: Uint8Array,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const answer = await fetch(`${url}/v1/batches`, {
    method: 'POST',
    headers: { 'content-type': 'application/cbor', 'content-encoding': 'gzip', ...headers },
    body,
  })
  return {
    status: answer.status,
    headers: answer.headers,
    body: (await answer.json()) as Record<string, unknown>,
  }
}

export function send(url: string, batch: TestBatch, encoding: Encoding = 'gzip'): Promise<Answer> {
  return post(url, batch.body(encoding), { 'content-encoding': encoding })
}
