import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { type TestContext, test } from 'node:test'
import { SocketReader } from '../../agent/source/socket-reader.ts'
import { until } from '../support/until.ts'

/** A connection whose one end is read by a `SocketReader`. */
async function pair(t: TestContext, options?: { napMs: number }) {
  const pieces: Uint8Array[] = []
  const reader = new SocketReader((bytes) => void pieces.push(bytes), options)
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const accepted = once(server, 'connection')
  const { port } = server.address() as AddressInfo
  const socket = connect({ port, host: '127.0.0.1', onread: reader.onread })
  reader.attend(socket)
  const [sender] = (await accepted) as [Socket]
  sender.setNoDelay(true)
  t.after(() => {
    socket.destroy()
    sender.destroy()
    server.close()
  })
  return { reader, sender, socket, pieces, read: () => Buffer.concat(pieces) }
}

function write(sender: Socket, bytes: Uint8Array): Promise<void> {
  return new Promise((resolve) => sender.write(bytes, () => resolve()))
}

/** Small pieces one upon the other, until the reader has had enough of them. */
async function lull(
  sender: Socket,
  socket: Socket,
  pieces: readonly Uint8Array[],
): Promise<number> {
  let sent = 0
  while (!socket.isPaused()) {
    const had = pieces.length
    await write(sender, Uint8Array.of(sent++))
    await until(() => pieces.length > had, 'a piece is read')
  }
  return sent
}

test('what is read stays as it was, however much comes behind it', async (t) => {
  const { sender, pieces, read } = await pair(t)
  const sent = Buffer.from(Array.from({ length: 1_000_000 }, (_, i) => (i * 31) >> 3))
  for (let at = 0; at < sent.length; at += 70_001)
    await write(sender, sent.subarray(at, at + 70_001))
  await until(
    () => pieces.reduce((sum, { length }) => sum + length, 0) === sent.length,
    'all is read',
  )
  assert.ok(read().equals(sent))
})

test('small pieces one upon the other are left to gather', async (t) => {
  const { sender, socket, pieces } = await pair(t, { napMs: 300 })
  const sent = await lull(sender, socket, pieces)
  assert.equal(pieces.length, sent)

  for (let i = 0; i < 100; i++) await write(sender, Uint8Array.of(i))
  assert.equal(pieces.length, sent, 'nothing is read meanwhile')
  await until(
    () => pieces.reduce((sum, { length }) => sum + length, 0) === sent + 100,
    'all is read',
  )
  assert.equal(pieces.length, sent + 1)
})

test('one who pauses the reader is not woken when its nap is over', async (t) => {
  const { reader, sender, socket, pieces } = await pair(t, { napMs: 5 })
  const sent = await lull(sender, socket, pieces)
  reader.pause()
  await write(sender, Uint8Array.of(1))
  await new Promise((resolve) => setTimeout(resolve, 50))
  assert.equal(pieces.length, sent)

  reader.resume()
  await until(() => pieces.length === sent + 1, 'it is read')
})

test('a peer that goes away during a nap is noticed', async (t) => {
  const { sender, socket, pieces } = await pair(t)
  await lull(sender, socket, pieces)
  const closed = once(socket, 'close')
  sender.end()
  await closed
})
