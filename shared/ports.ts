/**
 * The world as the core sees it. Production hands in the adapters (`shared/system.ts`,
 * `agent/outbox/level.ts`, `agent/source/dial.ts`, `agent/uplink/http.ts`,
 * `collector/log/embedded/disk.ts`); the simulated world hands in its own.
 */

/** Time. Order never rests on the wall clock, which may jump either way or stand still. */
export interface Clock {
  /** Milliseconds since 1970-01-01T00:00Z, integer. */
  wallMs(): number
  /** Milliseconds since an arbitrary point, never decreasing within one boot; may have a fraction. */
  monotonicMs(): number
  /** Calls back once after `ms` milliseconds; the returned function cancels it and may be called twice. */
  timer(ms: number, callback: () => void): () => void
}

export interface Random {
  /** Unpredictable bytes, fit for identities. */
  bytes(length: number): Uint8Array
  /** Uniform in [0, 1). */
  uniform(): number
}

/** The agent's ordered key-value store. Keys order as bytes. Contract: DESIGN.md, "LevelDB as it is". */
export interface Store {
  get(key: Uint8Array): Promise<Uint8Array | undefined>
  /** All of it or, after a crash, none of it. `sync` resolves once it survives power loss. */
  write(changes: readonly StoreChange[], options: { sync: boolean }): Promise<void>
  /** Entries in key order, from one consistent snapshot. */
  read(range: StoreRange): AsyncIterable<StoreEntry>
  /** Gives the disk space of what was deleted in a range back; absent where deleting does. */
  compact?(range: Pick<StoreRange, 'gte' | 'lt'>): Promise<void>
  /** Finishes what is in flight; safe to call twice. */
  close(): Promise<void>
}
/** `value` undefined deletes. */
export interface StoreChange {
  key: Uint8Array
  value: Uint8Array | undefined
}
export interface StoreEntry {
  key: Uint8Array
  value: Uint8Array
}
/** `gte` and `lt` bound the keys; `reverse` walks from the high end. */
export interface StoreRange {
  gte: Uint8Array
  lt: Uint8Array
  reverse?: boolean
  limit?: number
}

/** Opens byte streams to a broker (TCP, TLS or simulated). */
export interface Dialer {
  /** Resolves once connected (TLS: once verified); rejects with the cause. */
  dial(handlers: ConnectionHandlers, signal: AbortSignal): Promise<Connection>
}
export interface ConnectionHandlers {
  /** Bytes as they arrive; never called while paused. The callee may keep the array. */
  data(bytes: Uint8Array): void
  /** Called once, whatever ended the connection; `error` undefined when the peer ended it in order. */
  closed(error: Error | undefined): void
}
export interface Connection {
  write(bytes: Uint8Array): void
  /** Stops reading the socket, so that the peer feels back-pressure. */
  pause(): void
  resume(): void
  /** Sends what is queued, then closes. */
  end(): void
  /** Drops it at once. */
  destroy(): void
}

/** Sends one HTTP request to the collector. */
export interface HttpLink {
  /** Resolves with any answer; rejects when there was none before `timeoutMs` or `signal` aborted. */
  post(request: HttpRequest, signal: AbortSignal): Promise<HttpAnswer>
  close(): Promise<void>
}
export interface HttpRequest {
  path: string
  headers: Record<string, string>
  body: Uint8Array
  timeoutMs: number
}
export interface HttpAnswer {
  status: number
  /** Lower-case names. */
  headers: Record<string, string>
  /** At most 64 KiB; the rest is cut. */
  body: Uint8Array
}

/** Files, as the embedded log needs them. Paths are relative to the disk's root, `/`-separated. */
export interface Disk {
  /** Names in a directory, sorted; empty when it does not exist. */
  list(directory: string): Promise<string[]>
  makeDirectory(directory: string): Promise<void>
  /** `create` makes it when absent and fails when present. */
  open(path: string, mode: 'read' | 'write' | 'create'): Promise<DiskFile>
  rename(from: string, to: string): Promise<void>
  remove(path: string): Promise<void>
  /** Makes names made, moved or removed in the directory survive power loss. */
  syncDirectory(directory: string): Promise<void>
}
export interface DiskFile {
  size(): Promise<number>
  /** Up to `length` bytes from `offset`; fewer only at the end of the file. */
  read(offset: number, length: number): Promise<Uint8Array>
  /** Writes all chunks one behind the other from `offset`; not durable before `sync`. */
  write(chunks: readonly Uint8Array[], offset: number): Promise<void>
  /** As `write`; these bytes, if not what was written before them, are durable once it resolves. */
  writeSynced(chunks: readonly Uint8Array[], offset: number): Promise<void>
  /** fdatasync. */
  sync(): Promise<void>
  truncate(size: number): Promise<void>
  close(): Promise<void>
}
