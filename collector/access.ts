import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Logger } from '../shared/log.ts'
import { systemClock } from '../shared/system.ts'
import { type Auth, openAuth, TokenAuth } from './auth.ts'
import type { CollectorConfig } from './config.ts'
import type { HttpServer, ServerTls } from './http.ts'

/** Who may come in, and where a fleet is kept, everything about it. */
export interface Access extends AsyncDisposable {
  auth: Auth
  tls?: ServerTls
  /** Answers what is asked of the fleet; false when it is nothing of its. */
  answer(request: IncomingMessage, response: ServerResponse, url: URL): Promise<boolean>
  /** Begins to serve what is not asked over HTTP. */
  start(server: HttpServer): Promise<void>
  /** Ends what would go on for ever; requests in flight may still finish. */
  stop(): Promise<void>
}

/** @throws UserError when the fleet's folder, or the file of tokens, cannot be used */
export async function openAccess(config: CollectorConfig, logger: Logger): Promise<Access> {
  const { auth, fleet } = config
  if (auth.mode === 'mtls') {
    // A broker and certificates take memory and time at the start, and most collectors have no fleet.
    const { openFleetAccess } = await import('./fleet-access.ts')
    return openFleetAccess(config, fleet!, logger)
  }
  const opened =
    auth.mode === 'open' ? openAuth : await TokenAuth.open(auth.tokens, systemClock, logger)
  return {
    auth: opened,
    answer: async () => false,
    start: async () => {},
    stop: async () => {},
    [Symbol.asyncDispose]: () => opened[Symbol.asyncDispose](),
  }
}
