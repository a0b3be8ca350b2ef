import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Connection, ConnectionHandlers } from '../../shared/ports.ts'
import { FakeBroker } from '../support/fake-broker.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { SourceLife, seededRandom } from '../support/source.ts'

const agents = 1_000

for (const downS of [0, 5, 45])
  test(`a thousand agents come back to a broker that was away for ${downS} s spread out, and within 90 s`, async () => {
    const clock = new ManualClock()
    const random = seededRandom(7)
    let upMs = 0
    const backAtS: number[] = []
    class Shared extends FakeBroker {
      override async dial(handlers: ConnectionHandlers): Promise<Connection> {
        const sinceMs = clock.monotonicMs() - upMs
        if (sinceMs < 0) throw Object.assign(new Error('refused'), { code: 'ECONNREFUSED' })
        backAtS.push(Math.floor(sinceMs / 1000))
        const connection = await super.dial(handlers)
        queueMicrotask(() => this.dialled.at(-1)!.connack({ sessionPresent: false }))
        return connection
      }
    }
    const brokers = Array.from({ length: agents }, () => new Shared())
    const lives = await Promise.all(
      brokers.map((dialer) =>
        SourceLife.begin({ dialer, clock, random, config: { keepalive: '10m' } }),
      ),
    )
    await clock.advance(70_000)
    assert.equal(backAtS.length, agents, 'all are connected')

    backAtS.length = 0
    upMs = clock.monotonicMs() + downS * 1000
    for (const { dialled } of brokers) dialled.at(-1)!.lose()
    await clock.advance(downS * 1000 + 90_000)
    assert.equal(backAtS.length, agents, 'all are back, once')
    const perSecond = new Map<number, number>()
    for (const second of backAtS) perSecond.set(second, (perSecond.get(second) ?? 0) + 1)
    const most = Math.max(...perSecond.values())
    assert.ok(most <= agents / 10, `${most} in one second`)
    await Promise.all(lives.map(({ source }) => source.close()))
  })
