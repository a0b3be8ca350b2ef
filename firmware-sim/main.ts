import type { Command } from 'commander'
import { registerBroker } from './broker-command.ts'
import { registerSim } from './sim-command.ts'
import { registerUp } from './up.ts'

/** Adds the simulator's commands to the command line. */
export function register(command: Command, name: string): void {
  if (name === 'sim') registerSim(command)
  else if (name === 'broker') registerBroker(command)
  else registerUp(command)
}
