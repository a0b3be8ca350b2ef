import { runPacked } from '../../shared/package/packed.ts'
import { fleetProgram } from '../fleet-command.ts'
import * as program from '../main.ts'

void runPacked({
  name: 'headgate-collector',
  about: 'Takes batches from agents into the stream log, each once, and lets readers at it.',
  program,
  own: 'collector',
  also: {
    fleet: {
      about: 'manage gateways from afar: who belongs, what each runs',
      // What documents mean is the agent's own knowledge.
      program: fleetProgram(() => import('../../agent/document.ts')),
    },
    log: { about: 'read and check the stream log', program },
    sink: { about: 'look after what the log is written to', program },
  },
  config: '/etc/headgate/collector.yaml',
})
