import { runPacked } from '../../shared/package/packed.ts'
import * as program from '../main.ts'

void runPacked({
  name: 'headgate-agent',
  about: 'Takes readings from MQTT, keeps them, forwards them, and says of each where it is.',
  program,
  own: 'agent',
  also: {
    outbox: "look into a stopped agent's outbox",
    filter: 'try a filter on recorded traces',
  },
  config: '/etc/headgate/agent.yaml',
})
