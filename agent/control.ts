import { rm, writeFile } from 'node:fs/promises'
import { createServer, type Server, type ServerResponse } from 'node:http'
import { join } from 'node:path'
import { socketPath } from '../shared/control.ts'
import type { Agent } from './agent.ts'
import type { FleetStatus } from './fleet/fleet.ts'
import { tapLines } from './tap.ts'

/** A reader of `tap` that lags this far loses lines rather than the agent its memory. */
const maxTapBacklogBytes = 1024 * 1024

/** Answers what a person at the gateway asks of the running agent. Whoever may enter the data folder may ask. */
export async function openControl(
  agent: Agent,
  data: string,
  fleet: () => FleetStatus | undefined,
): Promise<AsyncDisposable> {
  const path = socketPath(data)
  // The store's lock is held by now, so a socket that is still there is a dead agent's.
  await rm(path, { force: true })
  const server = createServer((incoming, response) => {
    const { method, url } = incoming
    if (method === 'GET' && url === '/status') {
      const { status } = agent
      if (status) sendJson(response, 200, { ...status, fleet: fleet() })
      else sendJson(response, 503, { reason: 'the store is being opened' })
    } else if (method === 'GET' && url === '/tap') tap(agent, response)
    else if (method === 'POST' && url === '/flush')
      agent.flush().then(
        () => sendJson(response, 200, {}),
        (error: Error) => sendJson(response, 503, { reason: error.message }),
      )
    else sendJson(response, 404, { reason: 'one of GET /status, GET /tap, POST /flush' })
  })
  await listen(server, path)
  await writeFile(join(data, 'agent.pid'), `${process.pid}\n`)
  return {
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
      await rm(join(data, 'agent.pid'), { force: true })
    },
  }
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, resolve)
  })
}

function sendJson(response: ServerResponse, status: number, content: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' })
  response.end(JSON.stringify(content))
}

function tap(agent: Agent, response: ServerResponse): void {
  response.writeHead(200, { 'content-type': 'application/x-ndjson' })
  response.flushHeaders()
  const end = agent.tap((tapped) => {
    if (response.writableLength < maxTapBacklogBytes) response.write(tapLines(tapped))
  })
  response.on('close', end)
}
