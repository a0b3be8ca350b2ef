import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { test } from 'node:test'
import type { AgentStatus } from '../../agent/agent.ts'
import type { AgentConfig } from '../../agent/config.ts'
import { Governor, type GovernorOptions } from '../../agent/fleet/governor.ts'
import { type Document, sign } from '../../shared/fleet/envelope.ts'
import { readReport, reportedSchema } from '../../shared/fleet/reports.ts'
import { emptyLedger, type Ledger } from '../../shared/ledger.ts'
import type { Lane } from '../../shared/reading.ts'
import { agentConfig } from '../support/agent-in-process.ts'
import { FleetDesk } from '../support/fleet-desk.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { MemoryDisk } from '../support/memory-disk.ts'
import { silentLog } from '../support/silent-log.ts'

const local = agentConfig('/data', 'mqtt://plant:1883', { fleet: { probation: '10s' } })

/** As it stands in a document. */
const label = (name: string) => `\${label.${name}}`

function documentWith(more: Document = {}): Document {
  return {
    source: { url: 'mqtt://plant:1883' },
    decode: [{ topic: 'sensors/{device}/{metric}' }],
    uplink: { url: 'http://collector.test' },
    ...more,
  }
}

/** Of an agent's status what its health shows in. */
interface Life {
  ledger: Ledger
  alerts: number
  lanes: Record<Lane, { entries: number }>
  source: { phase: string }
  uplink: { lastAnsweredMs: number | undefined; lastFailure: string | undefined }
}

/** A gateway whose agent is as healthy as the test says. */
class Gateway {
  desk = new FleetDesk()
  readonly clock = new ManualClock(Date.UTC(2026, 5, 1))
  disk = new MemoryDisk()
  labels: Record<string, string> = { site: 'berlin', group: 'boilers' }
  environment: NodeJS.ProcessEnv = {}
  governor!: Governor
  applied: AgentConfig[] = []
  /** A second of life with what runs. */
  live: (status: Life, config: AgentConfig) => void = healthy
  status: Life = freshStatus()
  fleetConnected = true
  memoryBytes = 100e6
  fails: (config: AgentConfig) => boolean = () => false

  static async start(): Promise<Gateway> {
    const gateway = new Gateway()
    await gateway.start()
    return gateway
  }

  async start(): Promise<void> {
    const { clock, disk, labels, environment, desk } = this
    this.status = freshStatus()
    const options: GovernorOptions = {
      disk,
      clock,
      local,
      labels,
      environment,
      log: silentLog,
      configKey: desk.keys.publicKey,
      memoryBytes: () => this.memoryBytes,
    }
    this.governor = await Governor.open(options)
    this.applied = [this.governor.config]
    const self = this
    this.governor.govern({
      change: async (config: AgentConfig) => {
        if (self.fails(config)) throw new Error('impossible here')
        self.applied.push(config)
      },
      get status() {
        return structuredClone(self.status) as unknown as AgentStatus
      },
    })
  }

  /** As a crash or a power cut. */
  async restart(): Promise<void> {
    await this.start()
  }

  async seconds(count: number): Promise<void> {
    for (let i = 0; i < count; i++) {
      await this.clock.advance(1_000)
      this.live(this.status, this.governor.config)
      if (
        this.status.uplink.lastAnsweredMs !== undefined &&
        this.status.uplink.lastFailure === undefined
      )
        this.status.uplink.lastAnsweredMs = this.clock.wallMs()
      await this.governor.tick(this.fleetConnected)
    }
  }

  async push(version: number, document: Document, more = {}): Promise<void> {
    const nowMs = this.clock.wallMs()
    await this.governor.consider(this.desk.configuration(version, document, { nowMs, ...more }))
  }

  get reported() {
    const { version, state, desired, problems } = this.governor.reported
    return { version, state, desired, problems: problems.map(({ path }) => path) }
  }
}

function freshStatus(): Life {
  return {
    ledger: emptyLedger(),
    alerts: 0,
    lanes: { urgent: { entries: 0 }, bulk: { entries: 0 }, quarantine: { entries: 0 } },
    source: { phase: 'connected' },
    uplink: { lastAnsweredMs: 1, lastFailure: undefined },
  }
}

/** 100 readings a second arrive and are delivered. */
function healthy(status: Life): void {
  status.ledger.received += 100
  status.ledger.forwarded += 100
}

test('what is new is applied, watched, and good after its probation', async () => {
  const gateway = await Gateway.start()
  assert.deepEqual(gateway.reported, { version: 0, state: 'none', desired: 0, problems: [] })
  await gateway.seconds(20)
  await gateway.push(1, documentWith({ outbox: { maxBytes: '5MiB' } }))
  assert.deepEqual(gateway.reported, { version: 1, state: 'probation', desired: 1, problems: [] })
  assert.equal(gateway.applied.at(-1)!.outbox.maxBytes, 5 * 2 ** 20)
  await gateway.seconds(9)
  assert.equal(gateway.reported.state, 'probation')
  await gateway.seconds(2)
  assert.deepEqual(gateway.reported, { version: 1, state: 'good', desired: 1, problems: [] })
})

test('one document serves a group, each with its labels', async () => {
  const gateway = await Gateway.start()
  await gateway.seconds(20)
  const document = documentWith({ decode: [{ topic: `${label('site')}/{device}/{metric}` }] })
  await gateway.push(1, document, { group: 'boilers' })
  assert.deepEqual(gateway.applied.at(-1)!.source.topics, ['berlin/+/+'])
  await gateway.push(2, document, { group: 'pumps' })
  assert.deepEqual(gateway.reported, { version: 1, state: 'refused', desired: 2, problems: [''] })
  await gateway.push(3, document, { group: 'site=berlin' })
  assert.equal(gateway.reported.version, 3)
})

test('hostile: nothing runs that is not authentic, ours, of its time and newer', async () => {
  const gateway = await Gateway.start()
  await gateway.seconds(20)
  await gateway.push(5, documentWith())
  const nowMs = gateway.clock.wallMs()
  const { desk } = gateway
  const good = desk.configuration(6, documentWith(), { nowMs })
  const flipped = good.slice()
  flipped[good.length >> 1]! ^= 4
  const stranger = generateKeyPairSync('ed25519').privateKey
  const forged = sign(
    {
      kind: 'configuration',
      agent: 'gw-001',
      version: 6,
      notBeforeMs: 0,
      expiresMs: nowMs + 1e6,
      document: documentWith(),
    },
    stranger,
  )
  const refused: [string, Uint8Array, number | null, RegExp, number?][] = [
    ['a flipped bit', flipped, null, /signature|COSE/],
    ['a wrong key', forged, null, /signature is not of our fleet/],
    ['nothing', new Uint8Array(0), null, /tag 18/],
    ['noise', Buffer.alloc(1_000, 7), null, /tag 18/],
    ['10 MB', good, null, /larger than an envelope/, 10_000_000],
    ['JSON', Buffer.from('{"version":6}'), null, /tag 18/],
    ['a command', desk.command('c-1', 'restart'), null, /header/],
    ['an old version', desk.configuration(4, documentWith(), { nowMs }), 4, /older than version 5/],
    [
      'a version given twice',
      desk.configuration(5, documentWith({ outbox: {} }), { nowMs }),
      5,
      /other content/,
    ],
    [
      "another agent's document",
      desk.configuration(6, documentWith(), { nowMs, agent: 'gw-002' }),
      6,
      /another agent/,
    ],
    [
      'expired',
      desk.configuration(6, documentWith(), { nowMs, expiresMs: nowMs - 1 }),
      6,
      /expired/,
    ],
    [
      'from the future',
      desk.configuration(6, documentWith(), { nowMs, notBeforeMs: nowMs + 3_600_000 }),
      6,
      /not come yet/,
    ],
  ]
  const running = gateway.governor.config
  for (const [what, bytes, desired, message, size] of refused) {
    await gateway.governor.consider(bytes, size)
    const { reported } = gateway.governor
    assert.equal(reported.state, 'refused', what)
    assert.equal(reported.version, 5, what)
    assert.equal(reported.desired, desired, what)
    assert.match(reported.problems[0]!.message, message, what)
    assert.equal(gateway.governor.config, running, what)
  }
  // The broker gives what is retained again: all is as it was.
  await gateway.governor.consider(desk.configuration(5, documentWith(), { nowMs }))
  assert.equal(gateway.reported.state, 'probation')
})

test('every problem of a document is reported at once, and it takes up no version', async () => {
  const gateway = await Gateway.start()
  await gateway.seconds(20)
  await gateway.push(1, {
    source: { url: 'mqtt://plant', password: 'x' },
    decode: [{ topic: `${label('line')}/{device}` }],
    filter: [{ reduce: {} }],
    uplink: { url: 'nowhere' },
  })
  assert.deepEqual(gateway.reported, {
    version: 0,
    state: 'refused',
    desired: 1,
    problems: ['source.password', 'decode.0.topic', 'filter.0.reduce.error', 'uplink.url'],
  })
  await gateway.push(1, documentWith())
  assert.equal(gateway.reported.version, 1)
})

test('what comes before its time is applied when its time comes', async () => {
  const gateway = await Gateway.start()
  await gateway.seconds(20)
  await gateway.push(1, documentWith(), { notBeforeMs: gateway.clock.wallMs() + 120_000 })
  assert.equal(gateway.reported.state, 'refused')
  await gateway.seconds(70)
  assert.equal(gateway.reported.version, 1)
})

test('without a clock nothing is taken; once it is set, what waits is', async () => {
  const gateway = await Gateway.start()
  await gateway.seconds(20)
  const nowMs = gateway.clock.wallMs()
  gateway.clock.setWall(0)
  await gateway.governor.consider(gateway.desk.configuration(1, documentWith(), { nowMs }))
  assert.match(gateway.governor.reported.problems[0]!.message, /clock is not set/)
  gateway.clock.setWall(nowMs + 5_000)
  await gateway.seconds(1)
  assert.equal(gateway.reported.version, 1)
})

test('an old version is refused after a restart, too, and after going back', async () => {
  const gateway = await Gateway.start()
  await gateway.seconds(20)
  await gateway.push(7, documentWith())
  await gateway.seconds(11)
  gateway.live = () => {}
  await gateway.push(8, documentWith({ decode: [{ topic: 'elsewhere/{device}/{metric}' }] }))
  await gateway.seconds(11)
  assert.deepEqual(gateway.reported, {
    version: 7,
    state: 'reverted',
    desired: 8,
    problems: ['source'],
  })
  for (const restart of [false, true]) {
    if (restart) await gateway.restart()
    for (const version of [6, 7, 8]) {
      await gateway.push(version, documentWith({ outbox: { maxBytes: '3MiB' } }))
      assert.deepEqual(
        [gateway.reported.version, gateway.reported.state],
        [7, 'refused'],
        `${version}, ${restart ? 'after' : 'before'} a restart`,
      )
    }
  }
})

test('two managers at once: the higher version stays, in whichever order they come', async () => {
  const gateway = await Gateway.start()
  await gateway.seconds(20)
  await gateway.push(2, documentWith({ outbox: { maxBytes: '2MiB' } }))
  await gateway.push(3, documentWith({ outbox: { maxBytes: '3MiB' } }))
  assert.equal(gateway.reported.version, 3)
  await gateway.push(2, documentWith({ outbox: { maxBytes: '2MiB' } }))
  assert.equal(gateway.governor.config.outbox.maxBytes, 3 * 2 ** 20)
  // What is gone back to is what was good before both.
  gateway.memoryBytes = 2e9
  await gateway.seconds(11)
  assert.deepEqual(
    [gateway.reported.version, gateway.reported.state, gateway.reported.problems],
    [0, 'reverted', ['fleet.maxMemory']],
  )
})

const deadly: [string, Document, (status: Life, gateway: Gateway) => void, string][] = [
  [
    'rules that put everything into quarantine',
    documentWith({ decode: [{ topic: 'sensors/{device}/{metric}', value: '/nowhere' }] }),
    ({ ledger }) => {
      ledger.received += 100
      ledger.quarantined += 100
    },
    'decode',
  ],
  [
    'an uplink to nowhere',
    documentWith({ uplink: { url: 'http://nowhere.test' } }),
    ({ ledger, uplink, lanes }) => {
      ledger.received += 100
      ledger.buffered += 100
      lanes.bulk.entries += 1
      uplink.lastAnsweredMs = undefined
      uplink.lastFailure = 'nothing listens'
    },
    'uplink',
  ],
  [
    'a memory bound of 1 MB',
    documentWith({ fleet: { maxMemory: '1MB' } }),
    (status) => healthy(status),
    'fleet.maxMemory',
  ],
  [
    'a broker that is none',
    documentWith({ source: { url: 'mqtt://nowhere:1883' } }),
    ({ source }) => {
      source.phase = 'waiting'
    },
    'source',
  ],
  [
    'topics that nobody publishes',
    documentWith({ source: { url: 'mqtt://plant:1883', topics: ['nobody/#'] } }),
    () => {},
    'source',
  ],
  [
    'a filter that raises an alarm at every reading',
    documentWith({ filter: [{ check: { range: [0, 1] } }] }),
    (status) => {
      healthy(status)
      status.alerts += 50
    },
    'filter',
  ],
  [
    'an outbox that is far too small',
    documentWith({ outbox: { maxBytes: '1MiB' } }),
    (status) => {
      status.ledger.received += 100
      status.ledger.evicted += 90
      status.uplink.lastAnsweredMs = 5
    },
    'outbox',
  ],
  [
    'a fleet broker that is none',
    documentWith({ fleet: { url: 'mqtts://nowhere:8883' } }),
    (status, gateway) => {
      healthy(status)
      gateway.fleetConnected = false
    },
    'fleet',
  ],
]
for (const [what, document, life, path] of deadly)
  test(`valid but deadly: ${what} takes itself back, without help`, async () => {
    const gateway = await Gateway.start()
    await gateway.seconds(20)
    await gateway.push(1, documentWith())
    await gateway.seconds(11)
    assert.equal(gateway.reported.state, 'good')
    const good = gateway.governor.config
    await gateway.push(2, document)
    assert.equal(gateway.reported.state, 'probation')
    gateway.live = (status, config) => (config === good ? healthy(status) : life(status, gateway))
    await gateway.seconds(11)
    assert.deepEqual(gateway.reported, {
      version: 1,
      state: 'reverted',
      desired: 2,
      problems: [path],
    })
    assert.deepEqual(gateway.applied.at(-1), good)
  })

test('an outage that began before, or that the old configuration would share, is no verdict', async () => {
  const gateway = await Gateway.start()
  const failing = (status: Life) => {
    status.ledger.received += 100
    status.lanes.bulk.entries += 1
    status.uplink.lastFailure = 'nothing listens'
  }
  // The collector went away before: it is not asked for.
  gateway.live = failing
  await gateway.seconds(20)
  await gateway.push(1, documentWith({ outbox: { maxBytes: '2MiB' } }))
  await gateway.seconds(11)
  assert.equal(gateway.reported.state, 'good')
  // It is back, and goes away again after a change that has nothing to do with it: it is waited for.
  gateway.live = (status) => {
    healthy(status)
    status.uplink.lastFailure = undefined
  }
  await gateway.seconds(130)
  await gateway.push(2, documentWith({ outbox: { maxBytes: '3MiB' } }))
  gateway.live = failing
  await gateway.seconds(60)
  assert.equal(gateway.reported.state, 'probation')
  gateway.live = (status) => {
    healthy(status)
    status.uplink.lastFailure = undefined
  }
  await gateway.seconds(2)
  assert.equal(gateway.reported.state, 'good')
  // Likewise the plant's broker, and the fleet's.
  await gateway.push(3, documentWith({ outbox: { maxBytes: '4MiB' } }))
  gateway.live = ({ source }) => {
    source.phase = 'waiting'
  }
  gateway.fleetConnected = false
  await gateway.seconds(60)
  assert.equal(gateway.reported.state, 'probation')
  gateway.status.source.phase = 'connected'
  gateway.fleetConnected = true
  gateway.live = healthy
  await gateway.seconds(3)
  assert.deepEqual([gateway.reported.version, gateway.reported.state], [3, 'good'])
})

test('a configuration that cannot even begin is taken back at once', async () => {
  const gateway = await Gateway.start()
  await gateway.seconds(20)
  gateway.fails = ({ uplink }) => uplink.url === 'http://nowhere.test'
  await gateway.push(1, documentWith({ uplink: { url: 'http://nowhere.test' } }))
  assert.deepEqual(gateway.reported, { version: 0, state: 'reverted', desired: 1, problems: [''] })
  assert.equal(gateway.governor.config, local)
})

test('the third start within five minutes of a probation goes back; an end in order is no crash', async () => {
  const gateway = await Gateway.start()
  await gateway.seconds(20)
  await gateway.push(1, documentWith())
  for (let i = 0; i < 5; i++) {
    await gateway.restart()
    await gateway.governor.stopped()
  }
  assert.equal(gateway.reported.version, 1)
  await gateway.restart()
  await gateway.seconds(5)
  await gateway.restart()
  await gateway.seconds(5)
  assert.equal(gateway.reported.version, 1)
  await gateway.restart()
  assert.deepEqual(
    [gateway.reported.version, gateway.reported.state, gateway.reported.desired],
    [0, 'reverted', 1],
  )
  assert.match(gateway.governor.reported.problems[0]!.message, /started 3 times in five minutes/)
  assert.deepEqual(gateway.applied[0], local)
})

test('starts that lie further apart are no crash loop', async () => {
  const gateway = await Gateway.start()
  await gateway.seconds(20)
  await gateway.push(1, documentWith())
  for (let i = 0; i < 5; i++) {
    await gateway.restart()
    await gateway.clock.advance(200_000)
  }
  assert.equal(gateway.reported.version, 1)
})

test('the time before is remembered over a restart within the probation', async () => {
  const gateway = await Gateway.start()
  await gateway.seconds(20)
  await gateway.push(1, documentWith({ decode: [{ topic: 'none/{device}/{metric}' }] }))
  gateway.live = () => {}
  await gateway.restart()
  await gateway.seconds(12)
  assert.deepEqual(gateway.reported, {
    version: 0,
    state: 'reverted',
    desired: 1,
    problems: ['source'],
  })
})

test('what comes right after the start waits until there is a time before to judge it by', async () => {
  const gateway = await Gateway.start()
  await gateway.push(1, documentWith({ decode: [{ topic: 'none/{device}/{metric}' }] }))
  assert.equal(gateway.reported.version, 0)
  await gateway.seconds(11)
  assert.equal(gateway.reported.version, 1)
  gateway.live = () => {}
  await gateway.seconds(12)
  assert.equal(gateway.reported.state, 'reverted')
})

test('a label that is gone after a restart takes the configuration back', async () => {
  const gateway = await Gateway.start()
  await gateway.seconds(20)
  await gateway.push(1, documentWith({ decode: [{ topic: `${label('site')}/{device}/{metric}` }] }))
  await gateway.seconds(11)
  assert.equal(gateway.reported.state, 'good')
  gateway.labels = {}
  await gateway.restart()
  assert.deepEqual(gateway.reported.problems, ['decode.0.topic'])
  assert.deepEqual([gateway.reported.version, gateway.reported.state], [0, 'reverted'])
})

test('whenever the power goes, the old configuration runs or the new one, and nothing older is taken', async () => {
  const old = documentWith({ outbox: { maxBytes: '2MiB' } })
  const next = documentWith({ outbox: { maxBytes: '3MiB' } })
  let cuts = 0
  for (let nth = 1; ; nth++) {
    const gateway = await Gateway.start()
    await gateway.seconds(20)
    await gateway.push(1, old)
    await gateway.seconds(11)
    let calls = 0
    let cut: MemoryDisk | undefined
    gateway.disk.before = () => {
      calls += 1
      // What was not synced is torn in the middle.
      if (calls === nth)
        cut = gateway.disk.powerCut((_, { bytes, synced }) =>
          Buffer.compare(bytes, synced) === 0 ? synced : bytes.subarray(0, bytes.length / 2),
        )
    }
    await gateway.push(2, next)
    if (!cut) break
    cuts += 1
    gateway.disk = cut
    await gateway.restart()
    const { maxBytes } = gateway.governor.config.outbox
    const { version } = gateway.governor.reported
    assert.equal(maxBytes, version === 1 ? 2 * 2 ** 20 : 3 * 2 ** 20, `call ${nth}`)
    assert.ok(version === 1 || version === 2, `call ${nth}: version ${version}`)
    await gateway.push(1, documentWith({ outbox: { maxBytes: '9MiB' } }))
    assert.equal(gateway.governor.reported.version, version, `call ${nth}`)
    await gateway.seconds(20)
    await gateway.push(2, next)
    assert.equal(gateway.governor.config.outbox.maxBytes, 3 * 2 ** 20, `call ${nth}`)
  }
  assert.ok(cuts >= 10, `${cuts} cuts`)
})

test('damaged memory is told, the file runs, and nothing older is taken', async () => {
  const gateway = await Gateway.start()
  await gateway.seconds(20)
  await gateway.push(4, documentWith({ outbox: { maxBytes: '2MiB' } }))
  await gateway.seconds(11)
  gateway.disk.bytesOf('fleet/state.json').fill(0x20)
  await gateway.restart()
  assert.deepEqual([gateway.reported.version, gateway.reported.state], [0, 'reverted'])
  assert.match(gateway.governor.reported.problems[0]!.message, /damaged/)
  await gateway.seconds(20)
  await gateway.push(4, documentWith({ outbox: { maxBytes: '2MiB' } }))
  assert.equal(gateway.reported.version, 0)
  await gateway.push(5, documentWith({ outbox: { maxBytes: '2MiB' } }))
  assert.equal(gateway.reported.version, 5)
})

test('a disk that takes nothing leaves what runs', async () => {
  const gateway = await Gateway.start()
  await gateway.seconds(20)
  gateway.disk.before = (call) => {
    if (call === 'write') throw new Error('ENOSPC')
  }
  await assert.rejects(gateway.push(1, documentWith()), /ENOSPC/)
  assert.equal(gateway.reported.version, 0)
  gateway.disk.before = () => {}
  await gateway.push(1, documentWith())
  assert.equal(gateway.reported.version, 1)
})

test('what is told of a configuration with ever so many problems is taken', async () => {
  const gateway = await Gateway.start()
  const filter = Array.from({ length: 60 }, (_, i) => ({ [`${i}${'é'.repeat(2_000)}`]: 1 }))
  await gateway.push(1, documentWith({ filter: filter as never }))
  const { reported } = gateway.governor
  assert.equal(reported.state, 'refused')
  assert.ok(reported.problems.length > 0)
  const bytes = new TextEncoder().encode(JSON.stringify(reported))
  assert.deepEqual(readReport(reportedSchema, bytes), reported)
})

test('in a new fleet nothing of the one before runs, and versions count from 1 again', async () => {
  const gateway = await Gateway.start()
  await gateway.seconds(20)
  await gateway.push(7, documentWith({ outbox: { maxBytes: '5MiB' } }))
  await gateway.restart()
  assert.equal(gateway.reported.version, 7)
  gateway.desk = new FleetDesk()
  await gateway.restart()
  assert.deepEqual(gateway.reported, { version: 0, state: 'none', desired: 0, problems: [] })
  assert.equal(gateway.governor.config, local)
  await gateway.seconds(20)
  await gateway.push(1, documentWith({ outbox: { maxBytes: '6MiB' } }))
  assert.equal(gateway.reported.version, 1)
  await gateway.restart()
  assert.equal(gateway.governor.config.outbox.maxBytes, 6 * 2 ** 20)
  assert.deepEqual(
    (await gateway.disk.list('fleet')).filter((name) => name.startsWith('document')),
    ['document-1.json'],
  )
})
