// A broker for one subscriber that costs next to nothing: it sends pre-encoded QoS 1 messages as fast as
// its window lets it. A real broker on two cores would be what is measured.
//
//   node blasting-broker.ts <window> [devices]
//
// Prints its port, then `subscribed`. Told `go <count>` on stdin it sends so many, and prints
// `{"seconds": …}`, from the first byte sent to the last PUBACK.
import { createServer, type Server, type Socket } from 'node:net'
import { createInterface } from 'node:readline'
import mqttPacket from 'mqtt-packet'

const [window = 20_000, devices = 50] = process.argv.slice(2).map(Number)
/** Multiples of a chunk are sent; a small window needs small ones. */
const perChunk = Math.max(1, Math.min(100, window >> 1))
const chunks = Array.from({ length: Math.floor(60_000 / perChunk) }, (_, chunk) =>
  Buffer.concat(Array.from({ length: perChunk }, (_, i) => publish(chunk * perChunk + i))),
)

let subscriber: Socket | undefined
let startedMs = 0
let wanted = 0
let sent = 0
let acknowledged = 0
/** Bytes of a packet that began in the piece before. */
let carry = 0
let blocked = false

createInterface(process.stdin).on('line', (line) => {
  const [word, count] = line.split(' ')
  if (word !== 'go' || !subscriber) return
  wanted += Math.ceil(Number(count) / perChunk) * perChunk
  startedMs = performance.now()
  pump(subscriber)
})

const server: Server = createServer((socket) => {
  socket.setNoDelay(true)
  let greeted = false
  const parser = mqttPacket.parser({ protocolVersion: 4 })
  parser.on('packet', (packet) => {
    if (packet.cmd === 'connect')
      socket.write(mqttPacket.generate({ cmd: 'connack', returnCode: 0, sessionPresent: false }))
    if (packet.cmd !== 'subscribe') return
    const granted = packet.subscriptions.map(() => 1)
    socket.write(mqttPacket.generate({ cmd: 'suback', messageId: packet.messageId!, granted }))
    greeted = true
    subscriber = socket
    process.stdout.write('subscribed\n')
  })
  socket.on('data', (bytes) => {
    if (greeted) take(socket, bytes)
    else parser.parse(bytes)
  })
  socket.on('drain', () => {
    blocked = false
    pump(socket)
  })
  socket.on('error', () => {})
}).listen(0, '127.0.0.1', () => {
  process.stdout.write(`${(server.address() as { port: number }).port}\n`)
})

function pump(socket: Socket): void {
  while (!blocked && sent < wanted && sent - acknowledged + perChunk <= window) {
    blocked = !socket.write(chunks[(sent / perChunk) % chunks.length]!)
    sent += perChunk
  }
}

/** PUBACKs of 4 bytes, and a PINGREQ of 2 here and there. */
function take(socket: Socket, bytes: Buffer): void {
  let at = carry
  const before = acknowledged
  while (at < bytes.length) {
    if (bytes[at] === 0xc0) {
      socket.write(Uint8Array.of(0xd0, 0))
      at += 2
    } else {
      acknowledged += 1
      at += 4
    }
  }
  carry = at - bytes.length
  if (acknowledged < wanted) pump(socket)
  else if (before < wanted)
    process.stdout.write(`${JSON.stringify({ seconds: (performance.now() - startedMs) / 1e3 })}\n`)
}

function publish(n: number): Buffer {
  const v = (20 + ((n * 7919) % 1_000) / 100).toFixed(2)
  return mqttPacket.generate({
    cmd: 'publish',
    topic: `sensors/device-${n % devices}/metric-${Math.floor(n / devices) % 4}`,
    payload: `{"t":${1_767_225_600_000 + n * 20},"v":${v}}`,
    qos: 1,
    dup: false,
    retain: false,
    messageId: n + 1,
  })
}
