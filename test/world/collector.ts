import { Ingest } from '../../collector/ingest/ingest.ts'
import { EmbeddedLog } from '../../collector/log/embedded/embedded.ts'
import type { HttpAnswer } from '../../shared/ports.ts'
import { Seeded } from '../support/seeded.ts'
import type { Coverage } from './coverage.ts'
import { SimulatedDisk } from './disk.ts'
import type { Server } from './http.ts'
import { type Death, type Machine, Process, seededRandom } from './machine.ts'
import type { WorldLog } from './world-log.ts'

/** Time after which a service manager starts it again where it could not open its log, ms. */
const restartMs = 1_000

export interface CollectorOptions {
  machine: Machine
  coverage: Coverage
  log: WorldLog
  segmentBytes: number
  /** It has ended by itself, or thrown what it should have answered. */
  failed(error: unknown): void
}

/** A machine with a collector on it, below its HTTP server: the shipped ingest and log. */
export class SimulatedCollector {
  readonly machine: Machine
  readonly disk: SimulatedDisk
  readonly #options: CollectorOptions
  #process: Process | undefined
  #server: Server | undefined
  #log: EmbeddedLog | undefined
  /** Of all its processes. */
  readonly alarms = { clone: 0, restored: 0, unchained: 0 }

  constructor(options: CollectorOptions) {
    this.machine = options.machine
    this.#options = options
    this.disk = new SimulatedDisk(
      new Seeded(options.machine.seeded.below(2 ** 32)),
      options.coverage,
    )
  }

  /** Undefined while nothing listens. */
  get server(): Server | undefined {
    return this.#server
  }

  get isUp(): boolean {
    return this.#process !== undefined
  }

  /** It takes batches. */
  get isOpen(): boolean {
    return this.#log?.state === 'open'
  }

  get timers(): number {
    return this.#process?.timers ?? 0
  }

  start(): void {
    if (this.#process) return
    const process = new Process(this.machine.timeline)
    this.#process = process
    this.#options.log.say('collector starts', this.machine.name)
    void this.#open(process)
  }

  async #open(process: Process): Promise<void> {
    const { machine, log: worldLog, segmentBytes } = this.#options
    const clock = machine.clock(process)
    const logger = worldLog.logger(machine.name)
    let log: EmbeddedLog
    try {
      log = await EmbeddedLog.open({
        disk: this.disk.port(process),
        clock,
        random: seededRandom(machine.seeded.below(2 ** 32)),
        logger,
        segmentBytes,
        groupBytes: 16 * 1024,
        headroomBytes: 2 * 1024,
        retention: { bytes: undefined, ageMs: undefined },
      })
    } catch (error) {
      worldLog.say('collector cannot open its log', String(error))
      process.end('killed')
      if (this.#process !== process) return
      this.#process = undefined
      const { full, eioWrite, eioSync, shortWrite } = this.disk.trouble
      if (!full && eioWrite + eioSync + shortWrite === 0) this.#options.failed(error)
      machine.timeline.after(restartMs, () => this.start())
      return
    }
    if (!process.alive) return
    const limits = { maxBodyBytes: 2 ** 20, maxInflatedBytes: 8 * 2 ** 20 }
    const ingest = new Ingest({ log, clock, logger, ...limits })
    this.#log = log
    this.#server = {
      process,
      answer: (headers, body) => this.#answer(ingest, headers, body),
    }
  }

  async #answer(
    ingest: Ingest,
    headers: Record<string, string>,
    body: Uint8Array,
  ): Promise<HttpAnswer> {
    const before = { ...ingest.counts.alarms }
    try {
      return await ingest.take(headers, body)
    } catch (error) {
      this.#options.failed(error)
      throw error
    } finally {
      for (const alarm of ['clone', 'restored', 'unchained'] as const)
        this.alarms[alarm] += ingest.counts.alarms[alarm] - before[alarm]
    }
  }

  /** Calls back as the next write to disk begins. */
  onWrite(callback: () => void): void {
    this.disk.nextWrite = callback
  }

  /** Calls back as the next name on its disk is made, moved or removed. */
  onName(callback: () => void): void {
    this.disk.nextName = callback
  }

  crash(how: Death): void {
    const process = this.#process
    if (!process) return
    this.#options.log.say(`collector: ${how}`, this.machine.name)
    process.end(how)
    this.#process = undefined
    this.#server = undefined
    this.#log = undefined
    if (how === 'power cut') {
      this.disk.crash()
      this.machine.reboot()
    }
  }
}
