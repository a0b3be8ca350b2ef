// What takes batches with the least effort: node:http, the body appended to a file, one fdatasync for all
// that came during the last one, 204. `node append-server.ts <file>` prints its port.
import { open } from 'node:fs/promises'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

const file = await open(process.argv[2]!, 'w')
let bodies: Buffer[] = []
let waiting: ServerResponse[] = []
let writing = false

const server = createServer((request, response) => {
  const chunks: Buffer[] = []
  request.on('data', (chunk: Buffer) => void chunks.push(chunk))
  request.on('end', () => {
    bodies.push(...chunks)
    waiting.push(response)
    if (!writing) void writeAll()
  })
}).listen(0, '127.0.0.1', () => {
  process.stdout.write(`${(server.address() as AddressInfo).port}\n`)
})

async function writeAll(): Promise<void> {
  writing = true
  while (waiting.length > 0) {
    const [group, answers] = [bodies, waiting]
    bodies = []
    waiting = []
    await file.writev(group)
    await file.datasync()
    for (const response of answers) response.writeHead(204).end()
  }
  writing = false
}
