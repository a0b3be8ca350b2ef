// The package's types lie where the compiler does not look for them; this is the part we build on.
declare module 'aedes-persistence/asyncPersistence.js' {
  import type { Readable } from 'node:stream'
  import type { AedesPublishPacket, Client, Subscription } from 'aedes'

  export default class MemoryPersistence {
    storeRetained(packet: AedesPublishPacket): Promise<void>
    createRetainedStream(filter: string): Readable
    createRetainedStreamCombi(filters: string[]): Readable
    outgoingEnqueue(sub: { clientId: string }, packet: unknown): Promise<void>
    outgoingEnqueueCombi(subs: { clientId: string }[], packet: unknown): Promise<void>
    outgoingUpdate(client: Client, packet: unknown): Promise<void>
    outgoingClearMessageId(client: Client, packet: unknown): Promise<unknown>
    outgoingStream(client: Client): Readable
    subscriptionsByClient(client: Client): Promise<Subscription[]>
    cleanSubscriptions(client: Client): Promise<void>
  }
}
