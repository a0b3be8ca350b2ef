// The cloud's end for Node-RED: takes JSON, one message or an array of them, and keeps nothing.
// `node http-sink.ts <port>`
import { createServer } from 'node:http'
import { Sink } from './sink.ts'

const sink = new Sink()
createServer((request, response) => {
  const chunks: Buffer[] = []
  request.on('data', (chunk: Buffer) => void chunks.push(chunk))
  request.on('end', () => {
    response.writeHead(204).end()
    const document = JSON.parse(Buffer.concat(chunks).toString())
    for (const { t } of Array.isArray(document) ? document : [document]) sink.add(t)
  })
}).listen(Number(process.argv[2]), '127.0.0.1', () => process.stdout.write('listening\n'))
