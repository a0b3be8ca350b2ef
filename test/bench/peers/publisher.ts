// Sensors that publish with QoS 1 as fast as the broker acknowledges: `node publisher.ts <port> <window>`.
// Told `go <count>` it publishes so many and prints `{"seconds": …}` once all are acknowledged. The time
// in each message is its own: base + its number, ms. It shares its cores with what is measured, so its
// packets are filled into prepared ones, and of the broker's it only counts the PUBACKs.
import { connect } from 'node:net'
import { createInterface } from 'node:readline'
import mqttPacket from 'mqtt-packet'

const [port = 0, window = 1_000] = process.argv.slice(2).map(Number)
const baseMs = 1_767_225_600_000
const connackBytes = 4
const pubackBytes = 4
const timeAt = 'xx{"t":'.length
const valueAt = timeAt + `${baseMs},"v":`.length
const values = Array.from({ length: 1_000 }, (_, i) => (20 + i / 100).toFixed(2))
/** By topic: a packet whose id, time and value are still to be filled in, and where its topic ends. */
const prepared = Array.from({ length: 200 }, (_, n) => prepare(n))

const socket = connect(port, '127.0.0.1')
socket.setNoDelay(true)
socket.write(
  mqttPacket.generate({ cmd: 'connect', clientId: 'sensors', keepalive: 0, clean: true }),
)

let sent = 0
let received = 0
let wanted = 0
let startedMs = 0
socket.on('data', ({ length }) => {
  if (received === 0) process.stdout.write('connected\n')
  received += length
  pump()
  if (acknowledged() === wanted && wanted > 0)
    process.stdout.write(`${JSON.stringify({ seconds: (performance.now() - startedMs) / 1e3 })}\n`)
})
createInterface(process.stdin).on('line', (line) => {
  wanted += Number(line.split(' ')[1])
  startedMs = performance.now()
  pump()
})

function acknowledged(): number {
  return Math.floor((received - connackBytes) / pubackBytes)
}

function pump(): void {
  const packets: Buffer[] = []
  const until = Math.min(wanted, acknowledged() + window)
  for (; sent < until; sent++) packets.push(publish(sent))
  if (packets.length > 0) socket.write(Buffer.concat(packets))
}

function publish(n: number): Buffer {
  const { packet, topicEnd } = prepared[n % prepared.length]!
  const copy = Buffer.from(packet)
  copy.writeUInt16BE((n % 60_000) + 1, topicEnd)
  copy.write(String(baseMs + n), topicEnd + timeAt, 'latin1')
  copy.write(values[(n * 7919) % 1_000]!, topicEnd + valueAt, 'latin1')
  return copy
}

function prepare(n: number): { packet: Buffer; topicEnd: number } {
  const topic = `sensors/device-${n % 50}/metric-${Math.floor(n / 50)}`
  const packet = mqttPacket.generate({
    cmd: 'publish',
    topic,
    payload: `{"t":${baseMs},"v":${values[0]}}`,
    qos: 1,
    dup: false,
    retain: false,
    messageId: 1,
  })
  return { packet, topicEnd: packet.indexOf(topic) + topic.length }
}
