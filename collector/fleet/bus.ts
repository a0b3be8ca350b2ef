/**
 * A message from an agent, or from a manager who does without the collector; `by` is the common name of who
 * published it, undefined where the broker does not say.
 */
export type BusHandler = (topic: string, payload: Uint8Array, by?: string) => void

/** The broker that agents and managers meet at, as the collector uses it: its own, or any stock one. */
export interface FleetBus extends AsyncDisposable {
  /** Resolves once the broker has it. An empty retained payload takes a retained message away. */
  publish(topic: string, payload: Uint8Array, options: { retain: boolean }): Promise<void>
  /** Whether an agent is connected; undefined where the broker does not say, and its status must do. */
  isConnected(agent: string): boolean | undefined
  /** Ends the connections of somebody (by common name) who no longer counts, where that is in our hands. */
  drop(commonName: string): void
}
