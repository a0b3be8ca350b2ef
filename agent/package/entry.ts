import { runPacked } from '../../shared/package/packed.ts'
import * as program from '../main.ts'

void runPacked({
  name: 'headgate-agent',
  about: 'Takes readings from MQTT, keeps them, forwards them, and says of each where it is.',
  program,
  own: 'agent',
  also: {
    outbox: { about: "look into a stopped agent's outbox", program },
    filter: { about: 'try a filter on recorded traces', program },
  },
  config: '/etc/headgate/agent.yaml',
})
