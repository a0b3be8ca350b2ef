import { readFile } from 'node:fs/promises'
import { sleep } from '../../shared/clock.ts'
import { UserError } from '../../shared/failure.ts'
import type { Logger } from '../../shared/log.ts'
import type { Clock, Random } from '../../shared/ports.ts'
import type { EnrolConfig } from './config.ts'
import { EnrolRefused, enrol, refresh, renew } from './enrol.ts'
import { readIdentity } from './identity.ts'

export interface KeeperOptions {
  agent: string
  folder: string
  enrol: EnrolConfig | undefined
  clock: Clock
  random: Random
  log: Logger
}

/** A certificate is renewed when so much of its life is over: two tries in three may fail. */
const renewFrom = 0.6
const retryMs = { base: 5_000, max: 300_000, refused: 600_000 }
/** The identity is looked at again after at most this time: a label, or the clock, may be another by then. */
const maxSleepMs = 900_000

/**
 * Gets the gateway its identity and keeps it valid, until `signal` aborts. Readings are taken and kept
 * meanwhile: what fails here is only delivery.
 */
export async function keepIdentity(options: KeeperOptions, signal: AbortSignal): Promise<void> {
  const { clock, random, log } = options
  let attempt = 0
  while (!signal.aborted) {
    let waitMs: number
    try {
      waitMs = await attend(options)
      attempt = 0
    } catch (error) {
      const refused = error instanceof EnrolRefused
      const growing = Math.min(retryMs.max, retryMs.base * 2 ** attempt++)
      waitMs = (refused ? retryMs.refused : growing) * (0.5 + random.uniform() / 2)
      // Whatever it is, a full disk or a page of a captive portal, readings go on: what is said of it differs.
      const ours = error instanceof UserError
      log.warn(
        { retryInMs: Math.round(waitMs), ...(!ours && { err: error }) },
        `identity: ${(error as Error).message}`,
      )
    }
    await sleep(clock, waitMs, signal).catch(() => {})
  }
}

/** Does what is due. @returns after how many ms to look again */
async function attend({
  agent,
  folder,
  enrol: section,
  clock,
  random,
  log,
}: KeeperOptions): Promise<number> {
  const identity = await readIdentity(folder)
  if (!identity) {
    if (!section) return maxSleepMs
    const name = await enrol({ ...section, folder, agent, token: await tokenOf(section) })
    log.info({ agent: name, collector: section.url }, 'enrolled')
    return 0
  }
  if (identity.agent !== agent)
    throw new EnrolRefused(
      `the certificate in ${folder} is ${identity.agent}'s, but agent.yaml says ${agent}: set agent`,
    )
  const { certificate, ...known } = identity
  const { validFrom, validTo } = certificate
  const fromMs = Date.parse(validFrom)
  const dueMs = fromMs + (Date.parse(validTo) - fromMs) * renewFrom
  const leftMs = dueMs - clock.wallMs()
  if (leftMs > 0) {
    await refresh(known, section?.proxy, folder).catch((err) =>
      log.debug({ err }, 'the collector cannot be asked what it knows of the gateway'),
    )
    return Math.min(leftMs, maxSleepMs) * (0.8 + random.uniform() / 5) // Not all gateways at once.
  }
  await renew(identity.collector, section?.proxy, folder, agent)
  const renewed = await readIdentity(folder)
  log.info({ validTo: renewed?.certificate.validTo }, 'the certificate was renewed')
  return 0
}

async function tokenOf({ token, tokenFile }: EnrolConfig): Promise<string> {
  if (token !== undefined) return token
  try {
    return (await readFile(tokenFile!, 'utf8')).trim()
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    throw new UserError(`enrol.tokenFile: ${tokenFile} cannot be read (${code})`, { cause })
  }
}
