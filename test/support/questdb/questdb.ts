import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { cleanUp } from '../clean-up.ts'
import { endProcess } from '../end-process.ts'
import { freePort } from '../free-port.ts'
import { jarsOf } from '../jars.ts'
import { poll } from '../poll.ts'
import { temporaryDirectory } from '../temporary.ts'

/** A real QuestDB on loopback, over any number of starts and kills, gone when the test ends. */
export class QuestDb {
  readonly #jars: string
  readonly #directory: string
  readonly #port: number
  #process: ChildProcess | undefined

  /** Undefined when it cannot be had and the test was skipped. */
  static async start(t: TestContext): Promise<QuestDb | undefined> {
    const jars = await jarsOf(t, new URL('pom.xml', import.meta.url), 'questdb')
    if (!jars) return undefined
    const directory = await temporaryDirectory(t)
    const port = await freePort()
    const lines = [
      `http.bind.to=127.0.0.1:${port}`,
      ...['http.min', 'pg', 'line.tcp', 'line.udp', 'telemetry'].map(
        (each) => `${each}.enabled=false`,
      ),
      'shared.worker.count=1',
    ]
    await mkdir(join(directory, 'conf'))
    await writeFile(join(directory, 'conf', 'server.conf'), `${lines.join('\n')}\n`)
    const server = new QuestDb(jars, directory, port)
    cleanUp(t, () => server.kill())
    await server.up()
    return server
  }

  private constructor(jars: string, directory: string, port: number) {
    this.#jars = jars
    this.#directory = directory
    this.#port = port
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`
  }

  async up(): Promise<void> {
    const small = ['-Xmx256m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1']
    const java = [...small, '-cp', join(this.#jars, '*'), 'io.questdb.ServerMain']
    this.#process = spawn('java', [...java, '-d', this.#directory], { stdio: 'ignore' })
    await poll(
      async () => (await fetch(`${this.url}/ping`).catch(() => undefined))?.ok,
      'QuestDB answers',
      120_000,
    )
  }

  /** Rows of a query; none of a statement. */
  async sql(text: string): Promise<unknown[][]> {
    const answer = await fetch(`${this.url}/exec?query=${encodeURIComponent(text)}`)
    const { error, dataset = [] } = (await answer.json()) as {
      error?: string
      dataset?: unknown[][]
    }
    assert.equal(error, undefined, text)
    return dataset
  }

  async kill(): Promise<void> {
    const child = this.#process
    this.#process = undefined
    await endProcess(child)
  }
}
