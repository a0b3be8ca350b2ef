// Follows a collector's readings from the beginning with so many readers, each of which takes what one read of its
// socket gives, at most 64 KiB, and then nothing for ten seconds: `node slow-readers.ts <port> <readers>`. Prints
// `ready` once each has had something.
import { connect } from 'node:net'

const pauseMs = 10_000
const [port = 0, readers = 200] = process.argv.slice(2).map(Number)
await Promise.all(Array.from({ length: readers }, follow))
process.stdout.write('ready\n')

function follow(): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1')
    socket.write('GET /v1/streams/readings/tail?from=0 HTTP/1.1\r\nhost: collector\r\n\r\n')
    socket.on('error', reject)
    socket.on('data', () => {
      resolve()
      socket.pause()
      setTimeout(() => socket.resume(), pauseMs)
    })
  })
}
