import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type AgentConfig, agentSchema } from '../../agent/config.ts'
import { Seeded } from '../support/seeded.ts'
import { Broker } from './broker.ts'
import { SimulatedCollector } from './collector.ts'
import { Coverage } from './coverage.ts'
import { Gateway } from './gateway.ts'
import { Machine } from './machine.ts'
import { Network } from './network.ts'
import { Timeline } from './timeline.ts'
import { Trace } from './trace.ts'
import { WorldLog } from './world-log.ts'

const agents = 1_000

// A broker that many gateways share is given time, as the collector is by default.
for (const downMs of [1_000, 45_000])
  test(`a thousand agents come back to a broker that was away for ${downMs / 1000} s, spread out`, async () => {
    const plant = new Plant({ retry: { base: '20s' } })
    await plant.pass(60_000)
    assert.equal(plant.connected.size, agents)
    plant.broker.stop('kept')
    await plant.pass(downMs)
    plant.broker.start()
    plant.connected.clear()
    assertSpread(await plant.backWithin(90_000, plant.connected))
  })

// Long enough for all of them to notice.
for (const downMs of [5_000, 45_000])
  test(`a thousand agents come back to a collector that was away for ${downMs / 1000} s, spread out`, async () => {
    const plant = new Plant({})
    await plant.pass(60_000)
    assert.equal(plant.delivered.size, agents)
    plant.collector.crash('killed')
    plant.publish()
    await plant.pass(downMs)
    plant.collector.start()
    plant.delivered.clear()
    assertSpread(await plant.backWithin(90_000, plant.delivered))
  })

function assertSpread(backAtMs: readonly number[]): void {
  assert.equal(backAtMs.length, agents, 'all are back')
  const perSecond = Map.groupBy(backAtMs, (ms) => Math.floor(ms / 1000))
  const most = Math.max(...[...perSecond.values()].map(({ length }) => length))
  assert.ok(most <= agents / 10, `${most} in one second`)
}

/** A thousand agents, one broker, one collector. */
class Plant {
  /** When each came, by agent: accepted by the broker, answered by the collector. */
  readonly connected = new Map<string, number>()
  readonly delivered = new Map<string, number>()
  readonly broker: Broker
  readonly collector: SimulatedCollector
  readonly #timeline: Timeline
  readonly #seeded = new Seeded(7)

  constructor(source: object) {
    const coverage = new Coverage()
    this.#timeline = new Timeline(this.#fork())
    const trace = new Trace(() => this.#timeline.nowMs)
    const log = new WorldLog(trace)
    const network = new Network(this.#timeline, this.#fork(), coverage)
    const say = (what: string, detail: string | number = '') => {
      if (what === 'broker: CONNACK') this.#note(this.connected, String(detail).split(' ')[0]!)
    }
    this.broker = new Broker({
      kind: { version: 4, setsDuplicate: true, reusesIds: false, reorders: false, maxInFlight: 20 },
      network,
      trace: Object.assign(Object.create(trace), { say }),
    })
    this.collector = new SimulatedCollector({
      machine: this.#machine('collector'),
      coverage,
      log,
      segmentBytes: 2 ** 24,
      failed: (error) => assert.fail(String(error)),
    })
    this.collector.start()
    for (let i = 0; i < agents; i++) {
      const name = `gw-${i}`
      const gateway: Gateway = new Gateway({
        config: configOf(name, source),
        machine: this.#machine(name),
        broker: this.broker,
        network,
        server: () => this.#serverFor(name),
        log,
        writeBufferBytes: 2 ** 22,
        written: () => () => {},
        opened: () => {},
        died: (_, error) => assert.fail(String(error)),
      })
      gateway.start()
    }
  }

  #serverFor(name: string) {
    const { server } = this.collector
    if (!server) return undefined
    return {
      ...server,
      answer: (headers: Record<string, string>, body: Uint8Array) => {
        this.#note(this.delivered, name)
        return server.answer(headers, body)
      },
    }
  }

  #note(times: Map<string, number>, name: string): void {
    if (!times.has(name)) times.set(name, this.#timeline.nowMs)
  }

  /** Something for each agent. */
  publish(): void {
    for (let i = 0; i < agents; i++) {
      const topic = `sensors/gw-${i}/v`
      const payload = Buffer.from('{"v":1}')
      this.broker.accept({ device: '', topic, payload, qos: 1, contents: [], point: undefined })
    }
  }

  async pass(ms: number): Promise<void> {
    let over = false
    this.#timeline.after(ms, () => {
      over = true
    })
    await this.#timeline.run(() => over, ms + 1, Infinity)
  }

  /** After how long each was back, ms; those that are not are left out. */
  async backWithin(ms: number, times: ReadonlyMap<string, number>): Promise<number[]> {
    const sinceMs = this.#timeline.nowMs
    await this.pass(ms)
    return [...times.values()].map((atMs) => atMs - sinceMs)
  }

  #machine(name: string): Machine {
    return new Machine(name, this.#timeline, this.#fork(), Date.UTC(2026, 0, 1))
  }

  #fork(): Seeded {
    return new Seeded(this.#seeded.below(2 ** 32))
  }
}

function configOf(agent: string, source: object): AgentConfig {
  const topics = [`sensors/${agent}/v`]
  const { source: parsed, ...rest } = agentSchema.parse({
    agent,
    data: '/nowhere',
    source: { url: 'mqtt://broker.test', ...source },
    decode: [{ topic: 'sensors/{device}/{metric}' }],
    uplink: { url: 'http://collector.test', compression: 'none' },
  })
  return { ...rest, source: { ...parsed, topics } }
}
