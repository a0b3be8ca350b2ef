import { type ChildProcess, spawn } from 'node:child_process'
import type { TestContext } from 'node:test'
import { cleanUp } from './clean-up.ts'
import { endProcess } from './end-process.ts'
import { freePort } from './free-port.ts'
import { needs } from './needs.ts'
import { poll } from './poll.ts'
import { temporaryDirectory } from './temporary.ts'

/** A real VictoriaMetrics on loopback, over any number of starts and kills, gone when the test ends. */
export class VictoriaMetrics {
  readonly #binary: string
  readonly #directory: string
  readonly #port: number
  #process: ChildProcess | undefined

  /** Undefined when it is not installed and the test was skipped. */
  static async start(t: TestContext): Promise<VictoriaMetrics | undefined> {
    const binary = needs(t, 'victoria-metrics')
    if (!binary) return undefined
    const server = new VictoriaMetrics(binary, await temporaryDirectory(t), await freePort())
    cleanUp(t, () => server.kill())
    await server.up()
    return server
  }

  private constructor(binary: string, directory: string, port: number) {
    this.#binary = binary
    this.#directory = directory
    this.#port = port
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`
  }

  async up(): Promise<void> {
    const args = [
      `-storageDataPath=${this.#directory}`,
      `-httpListenAddr=127.0.0.1:${this.#port}`,
      '-retentionPeriod=100y',
      // Without it a point that comes twice is kept twice.
      '-dedup.minScrapeInterval=1ms',
      '-memory.allowedBytes=128MiB',
    ]
    this.#process = spawn(this.#binary, args, { stdio: 'ignore' })
    await poll(
      async () => (await fetch(`${this.url}/health`).catch(() => undefined))?.ok,
      'VictoriaMetrics answers',
    )
  }

  /** Its series that match a selector, each with times (ms) and values. */
  async export(
    selector: string,
  ): Promise<{ metric: Record<string, string>; timestamps: number[]; values: number[] }[]> {
    await fetch(`${this.url}/internal/force_flush`)
    const answer = await fetch(`${this.url}/api/v1/export?match[]=${encodeURIComponent(selector)}`)
    const lines = (await answer.text()).split('\n').filter((line) => line !== '')
    return lines.map((line) => JSON.parse(line))
  }

  async kill(): Promise<void> {
    const child = this.#process
    this.#process = undefined
    await endProcess(child)
  }
}
