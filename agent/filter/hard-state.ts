import type { Series } from '../../shared/reading.ts'
import { type Fault, readFaults } from './check.ts'
import type { Condition } from './condition.ts'
import { maxContext } from './context.ts'
import { readAlarms, type SavedAlarms } from './detect/alarm-gate.ts'
import { type Dress, readReduction, type SavedReduction } from './reduce/reduction.ts'
import { StateProblem, StateReader } from './state-bytes.ts'
import { type WindowListener, Windows } from './window/windows.ts'

/** First byte of saved state, hard and soft. */
export const stateVersion = 1

/** What a part of saved state is: never renumber, only add. */
export const part = {
  reduction: 1,
  /** Dropped readings that waited in case of an alarm: how many. */
  dropped: 2,
  windows: 3,
  /** Readings in windows that waited in case of an alarm: how many. */
  gathered: 4,
  faults: 5,
  alarms: 6,
  /** Time of an alarm, behind which readings pass whole. */
  around: 7,
} as const

/** What a promise rests on, of one series: as saved with the group that touched it last. */
export interface HardState {
  reduction: SavedReduction | undefined
  windows: Windows | undefined
  dropped: number
  gathered: number
  faults: ReadonlyMap<Fault, Condition> | undefined
  alarms: SavedAlarms | undefined
  /** ms */
  alarmMs: number | undefined
}

/** Readings that it holds, as the ledger counts them. */
export function heldBy({ reduction, dropped, gathered }: HardState): number {
  return (reduction?.held.length ?? 0) + dropped + gathered
}

/** When the oldest arrived that waits for a decision, or where the first window began, wall clock, ms. */
export function undecidedSince({ reduction, windows }: HardState): number {
  return Math.min(reduction?.held[0]?.arrival.wallMs ?? Infinity, windows?.oldestMs ?? Infinity)
}

/** @throws StateProblem */
export function readHardState(
  bytes: Uint8Array,
  series: Series,
  dress: Dress,
  listener: WindowListener,
): HardState {
  const reader = new StateReader(bytes)
  if (reader.byte() !== stateVersion) throw new StateProblem('state of another version')
  const state: HardState = {
    reduction: undefined,
    windows: undefined,
    dropped: 0,
    gathered: 0,
    faults: undefined,
    alarms: undefined,
    alarmMs: undefined,
  }
  while (!reader.done)
    switch (reader.byte()) {
      case part.reduction:
        state.reduction = readReduction(reader, series, dress)
        break
      case part.dropped:
        state.dropped = reader.count(maxContext)
        break
      case part.windows:
        state.windows = Windows.load(reader, listener)
        break
      case part.gathered:
        state.gathered = reader.count(maxContext)
        break
      case part.faults:
        state.faults = readFaults(reader)
        break
      case part.alarms:
        state.alarms = readAlarms(reader)
        break
      case part.around:
        state.alarmMs = reader.float()
        break
      default:
        throw new StateProblem('an unknown part')
    }
  return state
}
