import { accessSync, constants } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { delimiter, join } from 'node:path'
import { sleep } from '../shared/clock.ts'
import { UserError } from '../shared/failure.ts'
import { systemClock } from '../shared/system.ts'

/** The nats-server on PATH. @throws UserError when there is none */
export function findNatsServer(environment: NodeJS.ProcessEnv = process.env): string {
  for (const directory of (environment.PATH ?? '').split(delimiter)) {
    const path = join(directory, 'nats-server')
    try {
      accessSync(path, constants.X_OK)
      return path
    } catch {
      // Not here.
    }
  }
  throw new UserError('no nats-server on PATH: install 2.12 or newer, or name one with --nats')
}

/** Writes the configuration of a server that keeps its files in `folder`. */
export async function configureNatsServer(
  folder: string,
): Promise<{ file: string; url: string; port: number; monitoring: string }> {
  await mkdir(folder, { recursive: true })
  const [port, http] = await Promise.all([freePort(), freePort()])
  const file = join(folder, 'nats.conf')
  const lines = [
    `listen: "127.0.0.1:${port}"`,
    `http: "127.0.0.1:${http}"`,
    'max_payload: 4MB',
    // Each message is on disk before it is acknowledged.
    `jetstream { store_dir: ${JSON.stringify(folder)}, sync_interval: always }`,
  ]
  await writeFile(file, `${lines.join('\n')}\n`)
  return {
    file,
    port,
    url: `nats://127.0.0.1:${port}`,
    monitoring: `http://127.0.0.1:${http}`,
  }
}

/** Resolves once somebody listens on the port of loopback. */
export async function listens(port: number, signal: AbortSignal): Promise<void> {
  while (!(await tryPort(port))) await sleep(systemClock, 50, signal)
}

function tryPort(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port })
    const done = (isOpen: boolean) => {
      socket.destroy()
      resolve(isOpen)
    }
    socket.once('connect', () => done(true)).once('error', () => done(false))
  })
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject).listen({ host: '127.0.0.1', port: 0 }, () => {
      const { port } = server.address() as { port: number }
      server.close(() => resolve(port))
    })
  })
}
