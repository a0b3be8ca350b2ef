import type { Test } from '../../support/clean-up.ts'
import type { Program } from '../harness/program.ts'

/** A forwarder on the gateway, and the place that it forwards to. */
export interface Peer {
  /** Where sensors publish. */
  port: number
  start(): Promise<void>
  pid(): number
  kill(): Promise<void>
  openCloud(): Promise<void>
  /** Messages that are there, each counted once. */
  arrived(): Promise<number>
  brokerPid: number
}

export type Make = (t: Test, directory: string) => Promise<Peer>

/** Asks a program that counts in a `Sink`. */
export async function countOf(sink: Program): Promise<number> {
  sink.tell('count')
  return (await sink.json<{ distinct: number }>()).distinct
}
