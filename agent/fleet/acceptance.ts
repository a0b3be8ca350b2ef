import type { KeyObject } from 'node:crypto'
import type { Problem } from '../../shared/config.ts'
import {
  type Command,
  type Configuration,
  EnvelopeFailure,
  open,
} from '../../shared/fleet/envelope.ts'
import { isMember, type Labels } from '../../shared/fleet/groups.ts'
import { clocksSetAfterMs } from '../../shared/reading.ts'

/** How far ahead of the gateway's clock the signer's may be, ms. */
const skewMs = 60_000
/** A command that is to be remembered for longer is refused, ms. */
const longestCommandMs = 7 * 86_400_000

/** Whose envelopes are taken, and when. */
export interface Receiver {
  agent: string
  labels: Labels
  configKey: KeyObject
  nowMs: number
}

/** Why an envelope is not taken; `later` where only its time has not come, or cannot be told yet. */
export interface Refusal {
  /** The version that was refused; null where nothing vouches for it. */
  desired: number | null
  message: string
  later: boolean
}

/** A configuration that is authentic, for this agent, and of this time; or why it is not. */
export function acceptConfiguration(
  bytes: Uint8Array,
  receiver: Receiver,
): { configuration: Configuration } | { refusal: Refusal } {
  const opened = tryOpen('configuration', bytes, receiver.configKey)
  if ('message' in opened)
    return { refusal: { desired: null, message: opened.message, later: false } }
  const { envelope } = opened
  const refuse = (message: string, later = false) => ({
    refusal: { desired: envelope.version, message, later },
  })
  if (envelope.agent !== undefined && envelope.agent !== receiver.agent)
    return refuse('it is for another agent')
  if (envelope.group !== undefined && !isMember(envelope.group, receiver.labels))
    return refuse('it is for a group that this agent is not in')
  const { nowMs } = receiver
  if (nowMs < clocksSetAfterMs)
    return refuse("the gateway's clock is not set, so whether it has expired cannot be told", true)
  if (envelope.expiresMs <= nowMs) return refuse('it has expired')
  if (envelope.notBeforeMs > nowMs + skewMs) return refuse('its time has not come yet', true)
  return { configuration: envelope }
}

/** A command that is authentic, for this agent, under this id, and not expired; or what is wrong with it. */
export function acceptCommand(
  bytes: Uint8Array,
  id: string,
  receiver: Receiver,
): { command: Command } | { problem: Problem } {
  const opened = tryOpen('command', bytes, receiver.configKey)
  const refuse = (message: string) => ({ problem: { path: '', message } })
  if ('message' in opened) return refuse(opened.message)
  const { envelope } = opened
  if (envelope.agent !== receiver.agent) return refuse('it is for another agent')
  if (envelope.id !== id) return refuse('its id is not that of its topic')
  const { nowMs } = receiver
  if (nowMs < clocksSetAfterMs)
    return refuse("the gateway's clock is not set, so whether it has expired cannot be told")
  if (envelope.expiresMs <= nowMs) return refuse('it has expired')
  if (envelope.expiresMs > nowMs + longestCommandMs)
    return refuse('it expires in more than 7 days, which is too long to remember it')
  return { command: envelope }
}

function tryOpen<Kind extends 'configuration' | 'command'>(
  kind: Kind,
  bytes: Uint8Array,
  key: KeyObject,
) {
  try {
    return { envelope: open(kind, bytes, key) }
  } catch (error) {
    if (error instanceof EnvelopeFailure) return { message: error.message }
    throw error
  }
}
