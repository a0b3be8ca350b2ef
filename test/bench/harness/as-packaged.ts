import { fileURLToPath } from 'node:url'

const command = fileURLToPath(new URL('../../../headgate.mjs', import.meta.url))

/** Starts a program with the packaged agent's settings of V8, which trade some time for memory. */
export const asPackaged = {
  command: [
    process.execPath,
    '--max-semi-space-size=2',
    '--no-allocation-site-pretenuring',
    '--heap-growing-percent=10',
    '--v8-pool-size=1',
    command,
  ],
  // As the package's unit has it; so set, `headgate` does not add settings of its own.
  env: { MALLOC_ARENA_MAX: '1' },
}
