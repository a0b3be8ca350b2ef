import type { AgentConfig } from '../../agent/config.ts'
import { decodeSchema } from '../../agent/decode/decode.ts'
import { filterSchema } from '../../agent/filter/filter.ts'
import { fleetSchema } from '../../agent/fleet/config.ts'
import { outboxSchema } from '../../agent/outbox/outbox.ts'
import { sourceSchema } from '../../agent/source/source.ts'
import { uplinkSchema } from '../../agent/uplink/uplink.ts'
import type { Clock } from '../../shared/ports.ts'
import { Seeded } from '../support/seeded.ts'
import { type Accepted, Broker, type BrokerKind } from './broker.ts'
import { SimulatedCollector } from './collector.ts'
import { Coverage } from './coverage.ts'
import { type DiskImage, SimulatedDisk } from './disk.ts'
import { devices, faultKinds } from './faults.ts'
import { Gateway } from './gateway.ts'
import { Machine, Process } from './machine.ts'
import { Network } from './network.ts'
import { type Excuses, Oracle, quarantineContent } from './oracle.ts'
import type { Fault, Round } from './plan.ts'
import type { StoreImage } from './store.ts'
import { Timeline } from './timeline.ts'
import { Trace } from './trace.ts'
import { WorldLog } from './world-log.ts'

/** 2026-01-01T00:00Z */
const beginMs = 1_767_225_600_000
/** In which everything must have come to rest once faults have ended: retries wait a minute at most. */
const drainMs = 15 * 60_000

/** What an outbox may hold beyond its limit: a group that was just written, a batch on its way, gaps; bytes. */
const mostAtOnce = 4 * 1024

/** A backup of a gateway. */
export interface GatewayImage {
  store: StoreImage
  undecided: readonly Accepted[]
  /** What the broker would still deliver again; it may stand in the store all the same. */
  inFlight: readonly Accepted[]
  /** Number of the first message that it knows nothing of. */
  since: number
}

/** Everything there is, in one process: an agent or more, a broker, a collector, and what connects them. */
export class World {
  readonly timeline: Timeline
  readonly coverage = new Coverage()
  readonly trace: Trace
  readonly oracle: Oracle
  readonly excuses: Excuses
  /** Between devices, broker and agents; and between agents and collector. */
  readonly plant: Network
  readonly internet: Network
  readonly broker: Broker
  gateways: Gateway[]
  collector: SimulatedCollector
  /**
   * Whether a sensor says the same twice. It does not where packet ids prove nothing, since there nobody
   * could tell its second message from a first one that the broker sends again.
   */
  repeatsContent: boolean
  readonly #seeded: Seeded
  /** Whether an outage costs more than the outbox may hold, by far. */
  readonly #hoards: boolean
  readonly #segmentBytes: number
  readonly #log: WorldLog
  readonly #config: AgentConfig
  readonly #clock: Clock
  #machines = 0
  readonly #published = Array.from({ length: devices }, () => 0)
  #level = 20
  readonly #ends = new Set<() => void>()

  constructor(seed: number, options: { keepTrace?: boolean } = {}) {
    const seeded = new Seeded(seed ^ 0x5eed)
    this.#seeded = seeded
    this.timeline = new Timeline(this.#fork())
    this.trace = new Trace(() => this.timeline.nowMs, { keep: options.keepTrace ?? false })
    this.#log = new WorldLog(this.trace)
    this.plant = new Network(this.timeline, this.#fork(), this.coverage)
    this.internet = new Network(this.timeline, this.#fork(), this.coverage)
    const kind = makeBrokerKind(seeded)
    const config = makeConfig(seeded, kind)
    // Choices of their own, so that all others stay as they are.
    const scale = new Seeded(seed ^ 0x5ca1e)
    this.#hoards = scale.chance(0.06)
    this.#segmentBytes = scale.pick([2, 8, 8, 8]) * 1024
    this.#config = this.#hoards ? hoarding(config, scale) : config
    this.excuses = {
      severalLines: false,
      forked: false,
      storeDamaged: false,
      collectorForgot: false,
      logFlips: 0,
      evicts: this.#config.outbox.maxBytes < 2 ** 20,
      takenAway: new Set(),
      elsewhere: new Set(),
      rolledBack: new Set(),
      rolledBackPoints: [],
    }
    this.broker = new Broker({
      kind,
      network: this.plant,
      trace: this.trace,
      acknowledged: (message) => this.oracle.acknowledged(message),
    })
    this.repeatsContent = !kind.reusesIds
    this.oracle = new Oracle(this.broker, this.excuses, {
      error: reduce.error,
      maxStored: this.#config.outbox.maxBytes + mostAtOnce,
    })
    this.#clock = this.#machine('observer').clock(new Process(this.timeline))
    this.collector = this.#makeCollector()
    this.gateways = [this.#makeGateway()]
    this.collector.start()
    this.gateways[0]!.start()
  }

  /** A history, up to the first violation. */
  async run(rounds: readonly Round[]): Promise<void> {
    for (const round of rounds) {
      await this.#rage(round)
      this.#heal()
      if (this.gateways.length > 1) {
        // Both are heard: what each holds is delivered while they take the broker from one another.
        this.#publishInEachLane()
        await this.#rest(() => this.#isDelivered())
        for (const gateway of this.gateways.splice(1)) gateway.switchOff()
      }
      if (this.oracle.violations.length > 0) return
      await this.#rest(() => this.#isHeard())
      // A loss is found when its lane is next spoken of.
      this.#publishInEachLane()
      await this.#rest(() => this.#isHeard() && this.#isDelivered())
      if (this.oracle.violations.length > 0) return
      await this.oracle.check(this.collector, this.gateways, this.#clock)
      if (this.oracle.violations.length > 0) return
    }
  }

  /** P8: faults have ended, so it comes to pass, and in time. */
  async #rest(done: () => boolean): Promise<void> {
    const rested = await this.timeline.run(done, drainMs)
    this.trace.say(rested ? 'at rest' : 'not at rest')
    if (!rested) this.oracle.fail('P8', this.#unrest())
  }

  async #rage({ durationMs, faults, bursts }: Round): Promise<void> {
    let over = false
    this.timeline.after(durationMs, () => {
      over = true
    })
    for (const { atMs, device, messages } of bursts)
      this.timeline.after(atMs, () => this.publish(device, messages))
    for (const fault of faults) this.timeline.after(fault.atMs, () => this.#strike(fault))
    let watched = 0
    await this.timeline.run(() => {
      if (watched++ % 16 === 0) this.oracle.watch(this.gateways)
      return over
    }, durationMs + 1)
  }

  #strike({ kind, forMs, seed, number }: Fault): void {
    this.trace.say(`fault ${number}: ${kind} for`, forMs)
    const end = faultKinds[kind].begin(this, new Seeded(seed))
    if (!end) return
    const once = () => {
      if (!this.#ends.delete(once)) return
      this.trace.say(`fault ${number} ends`)
      end()
    }
    this.#ends.add(once)
    this.timeline.after(forMs, once)
  }

  /** All faults end, and everything is switched on. */
  #heal(): void {
    this.trace.say('healing')
    for (const end of [...this.#ends]) end()
    this.plant.heal()
    this.internet.heal()
    this.broker.calm()
    this.broker.start()
    this.collector.disk.heal()
    this.collector.start()
    for (const gateway of this.gateways) {
      gateway.store.heal()
      gateway.start()
    }
  }

  #isHeard(): boolean {
    return this.broker.hears(spoken)
  }

  #isDelivered(): boolean {
    if (!this.broker.isDrained || !this.collector.isOpen) return false
    return this.gateways.every((gateway) => {
      if (gateway.requests > 0) return false
      const status = gateway.status
      if (!status || status.source.unackedMessages > 0 || status.ledger.buffered > 0) return false
      return Object.values(status.lanes).every(({ entries }) => entries === 0)
    })
  }

  /** What keeps it from rest. */
  #unrest(): string {
    const lines = [
      `after ${drainMs / 60_000} min`,
      this.broker.isDrained ? '' : 'the broker holds messages',
      this.#isHeard() ? '' : 'no agent hears what is published',
      this.collector.isOpen ? '' : 'the collector is not open',
    ]
    for (const { machine, status, requests } of this.gateways) {
      const lanes = Object.entries(status?.lanes ?? {}).filter(([, { entries }]) => entries > 0)
      lines.push(
        status
          ? `${machine.name}: ${lanes.map(([lane, { sequences }]) => `${sequences} in ${lane}`).join()}, ` +
              `${status.source.phase}, ${status.source.unackedMessages} unacknowledged, ` +
              `uplink ${status.uplink.state.phase} ${status.uplink.lastFailure ?? ''}, ${requests} requests`
          : `${machine.name}: no store`,
      )
    }
    return lines.filter((line) => line !== '').join('; ')
  }

  #publishInEachLane(): void {
    for (const device of this.#published.keys()) this.publish(device, device === garbling ? 3 : 1)
  }

  publish(device: number, messages: number): void {
    if (!this.broker.isUp) return
    const count = this.#hoards && device === wandering ? 32 * messages : messages
    for (let i = 0; i < count; i++) {
      // A sensor may well say the same again.
      const repeats = device === 0 && this.repeatsContent && this.#seeded.chance(0.3)
      if (!repeats) this.#published[device]! += 1
      // It wanders, now and then it jumps.
      this.#level += (this.#seeded.uniform() - 0.5) * (this.#seeded.chance(0.1) ? 20 : 0.6)
      this.broker.accept(makeMessage(device, Math.max(1, this.#published[device]!), this.#level))
    }
  }

  /** The agents' memory of what was delivered is damaged or gone: they may take a repeat for new. */
  forgetMarks(): void {
    for (const message of this.broker.inFlight()) message.repeats += 1
  }

  /** A damaged reduction may go on where it was a while ago, and keep what it has kept since once more. */
  forgetReductions(): void {
    for (const message of this.broker.record) if (message.point) message.repeats += 1
  }

  /** Begins an image of a gateway: what it holds undecided is decided once more by whoever resumes it. */
  imageOf(gateway: Gateway): GatewayImage {
    const [first] = this.broker.unacknowledged()
    return {
      store: gateway.store.image(),
      undecided: this.oracle.undecided(),
      inFlight: [...this.broker.inFlight()],
      since: first?.number ?? this.broker.record.length,
    }
  }

  restoreGateway(gateway: Gateway, image: GatewayImage): void {
    const { store, undecided, inFlight, since } = image
    this.coverage.hit('agent image restored')
    this.excuses.severalLines = true
    gateway.crash('power cut')
    this.forgetMarks()
    this.excuses.rolledBackPoints.push([since, this.broker.record.length])
    const before = this.oracle.undelivered(gateway)
    gateway.store.restore(store)
    for (const message of undecided) message.repeats += 1
    // Where a write failed behind the image, what is in both was numbered anew meanwhile.
    for (const message of inFlight) if (this.oracle.isNumberedAnew(message)) message.repeats += 1
    const after = this.oracle.undelivered(gateway)
    for (const content of before) if (!after.has(content)) this.excuses.takenAway.add(content)
    gateway.start()
  }

  /** The disk of a running gateway is copied into another machine. */
  clone(): void {
    if (this.gateways.length > 1) return
    this.coverage.hit('clone')
    this.excuses.severalLines = true
    const copy = this.#copyGateway()
    copy.start()
  }

  /** One memory snapshot is resumed on two machines, which throw the same dice from there on. */
  fork(): void {
    if (this.gateways.length > 1) return
    this.coverage.hit('fork')
    this.excuses.severalLines = true
    this.excuses.forked = true
    const [original] = this.gateways
    original!.crash('killed')
    this.#copyGateway()
    const seed = this.#seeded.below(2 ** 32)
    for (const gateway of this.gateways) gateway.start(seed)
  }

  /** Another machine with what the first one's store holds. */
  #copyGateway(): Gateway {
    const original = this.gateways[0]!
    const copy = this.#makeGateway()
    const { store, undecided } = this.imageOf(original)
    copy.store.restore(store)
    for (const message of undecided) message.repeats += 1
    this.oracle.copied(original, copy)
    this.gateways.push(copy)
    return copy
  }

  restoreCollector(collector: SimulatedCollector, image: DiskImage): void {
    if (collector !== this.collector) return
    this.coverage.hit('collector image restored')
    this.excuses.collectorForgot = true
    const before = new SimulatedDisk(this.#fork(), this.coverage)
    before.restore(collector.disk.image())
    void this.oracle.remember(before.view(), this.#clock, this.excuses.rolledBack)
    collector.crash('power cut')
    collector.disk.restore(image)
    collector.start()
  }

  moveCollector(): void {
    this.coverage.hit('collector moved')
    this.excuses.collectorForgot = true
    const before = this.collector
    before.crash('killed')
    void this.oracle.remember(before.disk.view(), this.#clock, this.excuses.elsewhere)
    this.collector = this.#makeCollector()
    this.collector.start()
  }

  /** A bit of the collector's log is flipped, and it reads it again. */
  readonly damageLog = (): void => {
    const { collector } = this
    const flipped = collector.disk.flip()
    if (!flipped) return
    this.trace.say('flipped', `${flipped.path} ${flipped.offset}`)
    this.excuses.logFlips += 1
    this.excuses.collectorForgot = true
    collector.crash('killed')
    collector.start()
  }

  #makeGateway(): Gateway {
    return new Gateway({
      config: this.#config,
      machine: this.#machine('gateway'),
      broker: this.broker,
      network: this.internet,
      server: () => this.collector.server,
      log: this.#log,
      writeBufferBytes: 4_096,
      written: (gateway, changes) => this.oracle.written(gateway, changes),
      opened: (gateway) => this.oracle.reopened(gateway),
      died: (gateway, error) => {
        this.oracle.fail('P7', `${gateway.machine.name} has ended: ${error}`)
        this.timeline.after(1_000, () => gateway.start())
      },
    })
  }

  #makeCollector(): SimulatedCollector {
    return new SimulatedCollector({
      machine: this.#machine('collector'),
      coverage: this.coverage,
      log: this.#log,
      segmentBytes: this.#segmentBytes,
      failed: (error) => this.oracle.fail('P7', `the collector: ${error}`),
    })
  }

  #machine(role: string): Machine {
    this.#machines += 1
    const name = `${role}-${this.#machines}`
    return new Machine(name, this.timeline, this.#fork(), beginMs)
  }

  #fork(): Seeded {
    return new Seeded(this.#seeded.below(2 ** 32))
  }
}

function makeBrokerKind(seeded: Seeded): BrokerKind {
  return {
    version: seeded.chance(0.3) ? 5 : 4,
    setsDuplicate: seeded.chance(0.7),
    reusesIds: seeded.chance(0.3),
    reorders: seeded.chance(0.2),
    maxInFlight: seeded.pick([1, 5, 20, 1_000]),
  }
}

/** The device of which every third message does not decode. */
const garbling = 2

/** The device whose level may be thinned out. */
const wandering = 4

/** What devices publish in, one topic of each filter. */
const spoken = ['sensors/d0/v', 'multi/d1']

/** A level may be off by so much; what is held is let go after a while, so that a world can come to rest. */
const reduce = { error: 0.5, maxDelay: '5s' }

const decode = decodeSchema.parse([
  { topic: 'sensors/{device}/{metric}' },
  { topic: 'multi/{device}', values: 'all', time: 'none' },
])

function makeConfig(seeded: Seeded, { version }: BrokerKind): AgentConfig {
  const topics = ['sensors/+/+', 'multi/+']
  const source = sourceSchema.parse({
    url: 'mqtt://broker.test',
    version: version === 5 ? '5' : '3.1.1',
    receiveMaximum: seeded.pick([3, 20, 20_000]),
    maxUnackedMessages: seeded.pick([3, 50, 20_000]),
    maxGroupMessages: seeded.pick([2, 10, 10_000]),
    linger: seeded.pick(['0ms', '0ms', '20ms']),
  })
  return Object.freeze({
    agent: 'gw-001',
    data: '',
    source: { ...source, topics },
    decode,
    filter: filterSchema.parse(
      seeded.chance(0.6)
        ? [
            {
              match: { metric: 'level' },
              reduce: { method: seeded.pick(['linear', 'deadband']), ...reduce },
            },
          ]
        : [],
    ),
    fleet: fleetSchema.parse({}),
    outbox: {
      ...outboxSchema.parse({}),
      ...(seeded.chance(0.2) && { maxBytes: seeded.pick([500, 2_000]) }),
    },
    uplink: uplinkSchema.parse({
      url: 'http://collector.test',
      compression: 'none',
      retry: { base: seeded.pick(['1s', '20s']), max: '60s' },
      batch: {
        maxReadings: seeded.pick([1, 3, 20, 1_000]),
        maxAge: seeded.pick(['0ms', '200ms', '2s']),
      },
    }),
  })
}

/** With an outbox that is far too small, and each way to give way. */
function hoarding(config: AgentConfig, seeded: Seeded): AgentConfig {
  const whenFull = { bulk: seeded.pick(['thin', 'thin', 'evict', 'block'] as const) }
  return {
    ...config,
    // What a reduction leaves is too little to be thinned.
    filter: seeded.chance(0.7) ? [] : config.filter,
    outbox: { ...outboxSchema.parse({ whenFull }), maxBytes: seeded.pick([500, 1_500]) },
    // One request a reading would take a history's time for itself.
    uplink: { ...config.uplink, batch: { ...config.uplink.batch, maxReadings: 20 } },
  }
}

/** By device: one value, several values, something broken now and then, QoS 0, a level that is thinned out. */
function makeMessage(device: number, number: number, level: number) {
  const name = `d${device}`
  const plain = { device: name, qos: 1 as const, point: undefined }
  if (device === wandering) {
    // No two are equal, so that each has a name.
    const value = Number((level + number * 1e-6).toFixed(9))
    const timeMs = beginMs + number * 1_000
    return {
      ...plain,
      topic: `sensors/${name}/level`,
      payload: Buffer.from(`{"v":${value},"t":${timeMs}}`),
      contents: [`${name}/level=${value}`],
      point: { timeMs, value },
    }
  }
  if (device === 1) {
    const payload = Buffer.from(`{"a":${number},"b":{"c":${number}}}`)
    const contents = [`${name}/a=${number}`, `${name}/b.c=${number}`]
    return { ...plain, topic: `multi/${name}`, payload, contents }
  }
  const topic = `sensors/${name}/v`
  if (device === garbling && number % 3 === 0) {
    const payload = Buffer.from(`broken ${number}`)
    const contents = [quarantineContent(topic, payload)]
    return { ...plain, topic, payload, contents }
  }
  return {
    ...plain,
    topic,
    payload: Buffer.from(`{"v":${number}}`),
    qos: device === 3 ? (0 as const) : (1 as const),
    contents: [`${name}/v=${number}`],
  }
}
