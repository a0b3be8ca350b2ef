// The plainest subscriber there is, on mqtt.js: takes QoS 1 messages and throws them away.
// `node mqttjs.ts <broker url>`
import mqtt from 'mqtt'

const client = mqtt.connect(process.argv[2]!, { clean: false, clientId: 'plain', keepalive: 0 })
client.on('message', () => {})
client.on('connect', () => void client.subscribe('sensors/#', { qos: 1 }))
