import assert from 'node:assert/strict'
import { stringify } from 'yaml'
import type { AgentStatus } from '../../../agent/agent.ts'
import type { Cloud } from '../../support/plant.ts'
import { poll } from '../../support/poll.ts'
import type { Sensor } from '../../support/sensor.ts'
import type { Machine } from './machine.ts'

export const unit = 'headgate-agent'
export const data = '/var/lib/headgate/agent'
export const config = '/etc/headgate/agent.yaml'

/** A gateway with the package on it; the broker and the collector stand outside. */
export class PackagedGateway {
  readonly machine: Machine
  /** Readings that its ledger knows nothing of, since it was put back. */
  forgot = 0

  constructor(machine: Machine) {
    this.machine = machine
  }

  async configure(broker: string, collector: string): Promise<void> {
    const retry = { base: '50ms', max: '250ms' }
    await this.machine.write(
      config,
      stringify({
        agent: 'gw-001',
        data,
        source: { url: broker, retry: { ...retry } },
        decode: [{ topic: 'sensors/{device}/{metric}', format: 'json' }],
        uplink: { url: collector, retry: { ...retry } },
      }),
    )
  }

  property(name: string): Promise<string> {
    return this.machine.ask('systemctl', 'show', '--property', name, '--value', unit)
  }

  async journal(): Promise<string> {
    return this.machine.ask('journalctl', '--unit', unit, '--output', 'cat', '--no-pager')
  }

  async status(): Promise<AgentStatus | undefined> {
    const { code, stdout } = await this.machine.run('headgate-agent', 'status', '--json')
    return code === 0 ? JSON.parse(stdout) : undefined
  }

  until(satisfies: (status: AgentStatus) => boolean, what: string): Promise<AgentStatus> {
    return poll(
      async () => {
        const status = await this.status()
        return status && satisfies(status) && status
      },
      what,
      60_000,
    )
  }

  subscribed(): Promise<AgentStatus> {
    return this.until(({ source }) => source.subscribed.length > 0, 'the agent has subscribed')
  }

  /** The agent has sent all that was published, and it is in the log, once. */
  async delivered(sensor: Sensor, cloud: Cloud): Promise<void> {
    await poll(
      async () => {
        await this.machine.run('headgate-agent', 'flush')
        const status = await this.status()
        const { received = 0, deduplicated = 0, buffered = 1 } = status?.ledger ?? {}
        return received - deduplicated + this.forgot >= sensor.published && buffered === 0
      },
      `${sensor.published} readings are delivered`,
      60_000,
    )
    const values = (await cloud.readings()).map(({ value }) => Number(value))
    assert.deepEqual(
      values.sort((a, b) => a - b),
      Array.from({ length: sensor.published }, (_, index) => index + 1),
    )
  }
}
