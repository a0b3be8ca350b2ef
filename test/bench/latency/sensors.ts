// Sensors that publish at a steady rate: `node sensors.ts <broker url> <per second> <seconds>`. The value
// of each reading is when it was published, in microseconds since 1970. Prints `done` once the broker has
// acknowledged all of it.
import mqtt from 'mqtt'

const [url, ...numbers] = process.argv.slice(2)
const [perSecond = 1_000, seconds = 5] = numbers.map(Number)
const client = await mqtt.connectAsync(url!, { keepalive: 0 })
const total = perSecond * seconds
const startedMs = performance.now()
let sent = 0
let acknowledged = 0
let announced = false

const tick = setInterval(() => {
  const due = Math.min(total, Math.floor(((performance.now() - startedMs) / 1_000) * perSecond))
  for (; sent < due; sent++) {
    const topic = `sensors/device-${sent % 50}/metric-${Math.floor(sent / 50) % 4}`
    const microseconds = Math.round((performance.timeOrigin + performance.now()) * 1_000)
    client.publish(topic, `{"v":${microseconds}}`, { qos: 1 }, () => {
      acknowledged += 1
      if (acknowledged === total && !announced) {
        announced = true
        process.stdout.write('done\n')
      }
    })
  }
  if (sent === total) clearInterval(tick)
}, 1)
