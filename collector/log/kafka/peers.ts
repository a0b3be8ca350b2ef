import type { Lane } from '../../../shared/reading.ts'
import type { AppendAnswer, Entry, Held } from '../engine.ts'

/**
 * Collectors as they ask each other: each answers for the buckets that it owns. What one says of itself in
 * the group is all that the others need to reach it, and to be let in.
 */
export interface Peers {
  /** What the others must know of this one. */
  readonly about: PeerAbout
  /** @throws when it does not answer; it may have done what it was asked */
  append(peer: PeerAbout, entry: Entry): Promise<AppendAnswer | typeof elsewhere>
  held(
    peer: PeerAbout,
    agent: string,
    incarnation: Uint8Array,
    lane: Lane,
  ): Promise<Held | typeof elsewhere>
  /** @param request JSON, as is the answer */
  notes(peer: PeerAbout, request: NotesRequest): Promise<NotesAnswer | typeof elsewhere>
  close(): Promise<void>
}

/** See `Notes`. */
export type NotesRequest =
  | { call: 'read'; name: string }
  | { call: 'write'; name: string; text?: string | undefined; expected: number; id: string }
  | { call: 'list'; prefix: string }

export interface NotesAnswer {
  text?: string | undefined
  /** Of a write that is not there: there was another one. */
  revision?: number | undefined
  names?: string[]
}

/** The collector that was asked does not own what it was asked for, or not yet. */
export const elsewhere = Symbol('elsewhere')

export interface PeerAbout {
  /** `https://host:port` */
  url: string
  /** PEM of the authority of its certificate, which has signed no other. */
  certificate: string
  /** Lets in who knows it. */
  token: string
}

/** What a collector does for the others. */
export interface PeerHandlers {
  /** @throws WireFailure when the body is no batch */
  append(
    body: Uint8Array,
    encoding: string,
    arrivedMs: number,
  ): Promise<AppendAnswer | typeof elsewhere>
  held(agent: string, incarnation: Uint8Array, lane: string): Promise<Held | typeof elsewhere>
  /** @throws when it is no request */
  notes(request: unknown): Promise<NotesAnswer | typeof elsewhere>
}

export type OpenPeers = (handlers: PeerHandlers) => Promise<Peers>
