import { Readable } from 'node:stream'
import type { AedesPublishPacket } from 'aedes'
import MemoryPersistence from 'aedes-persistence/asyncPersistence.js'
import { topicRoot } from '../../shared/fleet/topics.ts'

/**
 * The broker's memory, with retained messages filed by agent: what is filed in one heap would be searched
 * whole for every one of thousands of agents that subscribe at once.
 */
export class RetainedByAgent extends MemoryPersistence {
  /** By the level behind the root, then by topic. */
  readonly #files = new Map<string, Map<string, AedesPublishPacket>>()

  override async storeRetained(packet: AedesPublishPacket): Promise<void> {
    const agent = agentLevel(packet.topic)
    if (agent === undefined) return
    const file = this.#files.get(agent)
    if (packet.payload.length > 0) {
      if (file) file.set(packet.topic, packet)
      else this.#files.set(agent, new Map([[packet.topic, packet]]))
    } else if (file?.delete(packet.topic) && file.size === 0) this.#files.delete(agent)
  }

  override createRetainedStream(filter: string): Readable {
    return this.createRetainedStreamCombi([filter])
  }

  override createRetainedStreamCombi(filters: string[]): Readable {
    return Readable.from(this.#matching(filters))
  }

  *#matching(filters: readonly string[]): Iterable<AedesPublishPacket> {
    for (const filter of filters) {
      const agent = agentLevel(filter)
      const files =
        agent === undefined || agent === '+' || agent === '#'
          ? [...this.#files.values()]
          : [this.#files.get(agent) ?? new Map<string, AedesPublishPacket>()]
      for (const file of files)
        for (const [topic, packet] of file) if (matches(filter, topic)) yield packet
    }
  }
}

/** The level behind `headgate/v1/`. */
function agentLevel(topic: string): string | undefined {
  return topic.startsWith(`${topicRoot}/`) ? topic.split('/')[2] : undefined
}

/** Whether a topic filter takes a topic (MQTT 3.1.1, section 4.7). */
export function matches(filter: string, topic: string): boolean {
  const wanted = filter.split('/')
  const levels = topic.split('/')
  for (const [index, want] of wanted.entries()) {
    if (want === '#') return true
    if (index >= levels.length || (want !== '+' && want !== levels[index])) return false
  }
  return wanted.length === levels.length
}
