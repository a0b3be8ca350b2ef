import { createServer, type Socket } from 'node:net'
import type { TestContext } from 'node:test'
import { Aedes } from 'aedes'

/** Stock aedes in this process, on a free port of loopback; gone when the test ends. */
export async function aedesBroker(t: TestContext): Promise<{ aedes: Aedes; url: string }> {
  const aedes = await Aedes.createBroker()
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    aedes.handle(socket)
  })
  await new Promise<void>((resolve) => server.listen({ host: '127.0.0.1', port: 0 }, resolve))
  t.after(async () => {
    await new Promise<void>((resolve) => aedes.close(resolve))
    for (const socket of sockets) socket.destroy()
    await new Promise((resolve) => server.close(resolve))
  })
  const { port } = server.address() as { port: number }
  return { aedes, url: `mqtt://127.0.0.1:${port}` }
}
