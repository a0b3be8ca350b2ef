import { runPacked } from '../../shared/package/packed.ts'
import * as program from '../main.ts'

void runPacked({
  name: 'headgate-collector',
  about: 'Takes batches from agents into the stream log, each once, and lets readers at it.',
  program,
  own: 'collector',
  also: { log: 'read and check the stream log' },
  config: '/etc/headgate/collector.yaml',
})
