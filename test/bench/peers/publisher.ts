// Sensors that publish with QoS 1 as fast as the broker acknowledges: `node publisher.ts <port> <window>`.
// Told `go <count>` it publishes so many and prints `{"seconds": …}` once all are acknowledged. The time
// in each message is its own: base + its number, ms.
import { connect } from 'node:net'
import { createInterface } from 'node:readline'
import mqttPacket from 'mqtt-packet'

const [port = 0, window = 1_000] = process.argv.slice(2).map(Number)
const socket = connect(port, '127.0.0.1')
socket.setNoDelay(true)
socket.write(
  mqttPacket.generate({ cmd: 'connect', clientId: 'sensors', keepalive: 0, clean: true }),
)

let sent = 0
let acknowledged = 0
let wanted = 0
let startedMs = 0
const parser = mqttPacket.parser()
parser.on('packet', ({ cmd }) => {
  if (cmd === 'connack') process.stdout.write('connected\n')
  if (cmd !== 'puback') return
  acknowledged += 1
  if (acknowledged < wanted) return
  process.stdout.write(`${JSON.stringify({ seconds: (performance.now() - startedMs) / 1e3 })}\n`)
})
socket.on('data', (bytes) => {
  parser.parse(bytes)
  pump()
})
createInterface(process.stdin).on('line', (line) => {
  wanted += Number(line.split(' ')[1])
  startedMs = performance.now()
  pump()
})

function pump(): void {
  const packets: Buffer[] = []
  for (; sent < wanted && sent - acknowledged < window; sent++) packets.push(publish(sent))
  if (packets.length > 0) socket.write(Buffer.concat(packets))
}

function publish(n: number): Buffer {
  const v = (20 + ((n * 7919) % 1_000) / 100).toFixed(2)
  return mqttPacket.generate({
    cmd: 'publish',
    topic: `sensors/device-${n % 50}/metric-${Math.floor(n / 50) % 4}`,
    payload: `{"t":${1_767_225_600_000 + n},"v":${v}}`,
    qos: 1,
    dup: false,
    retain: false,
    messageId: (n % 60_000) + 1,
  })
}
