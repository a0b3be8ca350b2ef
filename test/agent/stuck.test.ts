import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Agent } from '../../agent/agent.ts'
import type { StoreChange } from '../../shared/ports.ts'
import { aedesBroker } from '../support/aedes-broker.ts'
import { agentConfig, agentPorts } from '../support/agent-in-process.ts'
import { MemoryStore } from '../support/memory-store.ts'
import { ModelCollector } from '../support/model-collector.ts'
import { device } from '../support/publisher.ts'
import { until } from '../support/until.ts'

/** A disk that at some time no longer answers, as one on a network or a dying card does. */
class SilentDisk extends MemoryStore {
  readonly #answers = Promise.withResolvers<void>()
  isSilent = false

  override async write(changes: readonly StoreChange[]): Promise<void> {
    if (this.isSilent) await this.#answers.promise
    await super.write(changes)
  }

  answer(): void {
    this.#answers.resolve()
  }
}

test('an agent whose commit never ends is stuck, although its event loop turns', async (t) => {
  const broker = await aedesBroker(t)
  const disk = new SilentDisk()
  const collector = new ModelCollector()
  const ports = await agentPorts(t, () => collector)
  const config = agentConfig('/nowhere', broker.url)
  const agent = new Agent(config, { ...ports, openStore: async () => disk })
  const stop = new AbortController()
  const running = agent.run(stop.signal)
  await until(() => (agent.status?.source.subscribed.length ?? 0) > 0, 'it has subscribed')
  const { publish } = await device(t, broker.url)
  await publish('sensors/pump/flow', ['1'])
  await until(() => collector.readings.length === 1, 'it works')
  assert.ok(agent.stuckForMs < 2_000)

  disk.isSilent = true
  const unanswered = publish('sensors/pump/flow', ['2'])
  await until(() => agent.stuckForMs > 2_000, 'it is seen to be stuck')

  disk.answer()
  await unanswered
  await until(() => agent.stuckForMs < 1_000, 'it turns again')
  stop.abort()
  await running
})
