// The cloud's end for a bridge: reads along at the second broker. `node mqtt-sink.ts <port>`
import mqtt from 'mqtt'
import { Sink } from './sink.ts'

const sink = new Sink()
const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${process.argv[2]}`, { keepalive: 0 })
client.on('message', (_topic, payload) => sink.add(JSON.parse(payload.toString()).t))
await client.subscribeAsync('sensors/#', { qos: 0 })
process.stdout.write('listening\n')
