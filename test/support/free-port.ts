import { once } from 'node:events'
import { createServer } from 'node:net'

/**
 * Below what Linux gives to outgoing connections (32768 and up), one of which could otherwise take a port
 * between its choice and its use, or while the program that owns it is dead.
 */
const range = { first: 10_000, count: 22_000 }

/** Each test process begins elsewhere, and gives no port twice. */
let next = (process.pid * 97) % range.count

/** A port of loopback that nothing listens on, for a program that cannot choose one itself. */
export async function freePort(): Promise<number> {
  for (let tried = 0; tried < range.count; tried++) {
    const port = range.first + next
    next = (next + 1) % range.count
    if (await isFree(port)) return port
  }
  throw new Error('no port of loopback is free')
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer()
  try {
    await once(server.listen({ host: '127.0.0.1', port }), 'listening')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') return false
    throw error
  }
  server.close()
  await once(server, 'close')
  return true
}
