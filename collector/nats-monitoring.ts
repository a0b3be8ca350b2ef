import type { Logger } from '../shared/log.ts'
import { LogFailure } from './log/engine.ts'

const answerMs = 5_000

/**
 * Asks NATS servers by their monitoring whether they sync what they acknowledge: over the connection itself
 * nobody can see it. One that does not answer may be down, as one of three may.
 *
 * @param urls of the servers' monitoring, such as http://n1:8222
 * @throws LogFailure LOG_REFUSED when one does not, or has no JetStream
 */
export async function checkSync(urls: readonly string[], logger: Logger): Promise<void> {
  if (urls.length === 0)
    logger.warn(
      'whether NATS servers sync what they acknowledge is not known: set log.nats.monitoring',
    )
  await Promise.all(
    urls.map(async (url) => {
      const answer = await fetch(`${url.replace(/\/+$/, '')}/varz`, {
        signal: AbortSignal.timeout(answerMs),
      })
        .then((response) => response.json())
        .catch((error) => {
          logger.warn(
            { url, err: String(error) },
            'the monitoring of a NATS server does not answer',
          )
        })
      if (answer && (answer as Varz).jetstream?.config?.sync_always !== true)
        throw new LogFailure(
          'LOG_REFUSED',
          `the NATS server at ${url} does not sync what it acknowledges: set ` +
            'jetstream { sync_interval: always } in its configuration',
        )
    }),
  )
}

/** What is of interest of a server's state. */
interface Varz {
  jetstream?: { config?: { sync_always?: boolean } }
}
