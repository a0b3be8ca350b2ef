import { fileURLToPath } from 'node:url'
import { v8Flags } from '../../../agent/package/v8-flags.ts'

const command = fileURLToPath(new URL('../../../headgate.mjs', import.meta.url))

/** Starts a program with the packaged agent's settings of V8, which trade some time for memory. */
export const asPackaged = {
  command: [process.execPath, ...v8Flags, command],
  // As the package's unit has it; so set, `headgate` does not add settings of its own.
  env: { MALLOC_ARENA_MAX: '1' },
}
