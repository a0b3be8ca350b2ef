import type { Samples } from '../shared/trace.ts'
import type { Pace } from './pace.ts'
import { payloadOf } from './payload.ts'
import type { Publisher } from './publisher.ts'

export interface PlayOptions {
  publisher: Publisher
  pace: Pace
  /** First level of the topics, `<prefix>/<device>/<metric>`. */
  prefix: string
  /** Messages sent by each device; counted up. */
  devices: Map<string, number>
  signal: AbortSignal
}

/** Publishes a recording to its end, or to the signal. @throws UserError when the broker is gone for good */
export async function play(samples: Samples, options: PlayOptions): Promise<void> {
  const { publisher, pace, prefix, devices, signal } = options
  try {
    for await (const batch of samples)
      for (const sample of batch) {
        const due = pace.until(sample.atMs, signal)
        if (due) await due
        // Again after each wait: somebody else may have been faster.
        for (let room = publisher.room(signal); room; room = publisher.room(signal)) await room
        signal.throwIfAborted()
        publisher.publish(`${prefix}/${sample.device}/${sample.metric}`, payloadOf(sample))
        devices.set(sample.device, (devices.get(sample.device) ?? 0) + 1)
      }
  } catch (error) {
    if (error !== signal.reason) throw error
  }
}
