import type { Labels } from '../../shared/fleet/groups.ts'
import type { ReportState } from '../../shared/fleet/reports.ts'
import type { RolloutPlan } from './rollout.ts'

export interface Invitation {
  agent: string
  labels: Labels
  /** SHA-256 of the token, hexadecimal. */
  hash: string
  expiresMs: number
}

/**
 * What happens to a fleet. The journal keeps each for good, and the fleet's state is their sum: what was
 * written once must stay readable.
 */
export type Fact =
  | ({ act: 'invite' } & Invitation)
  | { act: 'enrol'; agent: string; hash: string; key: string; serial: string; notAfterMs: number }
  /** The agent has used its certificate: its token is spent. */
  | { act: 'confirm'; agent: string; hash: string }
  | { act: 'renew'; agent: string; serial: string; notAfterMs: number }
  /** Somebody was turned away. `times` more of the kind were, that are not listed each. */
  | { act: 'refuse'; what: string; why: string; agent?: string; from?: string; times?: number }
  | { act: 'revoke'; name: string }
  /** One certificate puts its own connection out again and again: two gateways may have it. */
  | { act: 'clone'; agent: string }
  | { act: 'label'; agent: string; labels: Labels }
  /** A signed configuration goes to these agents; `digest` names its bytes. */
  | {
      act: 'desire'
      version: number
      digest: string
      agents: readonly string[]
      /** Those of them that were not connected then. */
      offline?: readonly string[]
      group?: string
      rollout?: string
    }
  /** What became of a version at an agent. */
  | { act: 'outcome'; agent: string; version: number; state: ReportState; why?: string }
  | { act: 'rollout'; id: string; plan: RolloutPlan }
  | { act: 'halt' | 'resume' | 'finish'; id: string; why?: string }
  | { act: 'command'; agent: string; id: string; command: string }
  | { act: 'result'; agent: string; id: string; state: string }
  /** The sum of what came before was kept, in a file with this SHA-256. */
  | { act: 'checkpoint'; digest: string }
