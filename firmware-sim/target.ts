import { readFileSync } from 'node:fs'
import { connect as connectPlain, isIP, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { IConnackPacket } from 'mqtt-packet'
import { UserError } from '../shared/failure.ts'

/** Where a broker is, and how to get a socket to it. */
export interface Target {
  label: string
  secure: boolean
  dial(): Socket
}

/** @throws UserError for an address that cannot be used */
export function parseTarget(url: string, caFile: string | undefined): Target {
  const parsed = URL.parse(url)
  const secure = parsed?.protocol === 'mqtts:'
  if (!parsed || parsed.hostname === '' || !(secure || parsed.protocol === 'mqtt:'))
    throw new UserError(
      `--broker takes an address such as mqtt://127.0.0.1:1883 or mqtts://host:8883, not "${url}"`,
      { exitCode: 2 },
    )
  const host = parsed.hostname.replace(/^\[|\]$/g, '')
  const port = Number(parsed.port || (secure ? 8883 : 1883))
  const label = `${parsed.protocol}//${parsed.hostname}:${port}`
  if (!secure) return { label, secure, dial: () => connectPlain({ host, port }) }
  let ca: string | undefined
  try {
    ca = caFile === undefined ? undefined : readFileSync(caFile, 'utf8')
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    throw new UserError(`${caFile}: cannot be read (${code}): check --ca`, { exitCode: 2, cause })
  }
  return {
    label,
    secure,
    // An address has no server name (RFC 6066); its certificate is checked all the same.
    dial: () =>
      connectTls({
        host,
        port,
        ...(isIP(host) ? {} : { servername: host }),
        ...(ca ? { ca } : {}),
      }),
  }
}

/** Why the broker lets nobody in; a UserError where trying again cannot help. */
export function refusalOf({ returnCode }: IConnackPacket): Error | undefined {
  switch (returnCode) {
    case 0:
      return undefined
    // Brokers tell a wrong password (4) from a missing permission (5) as they like.
    case 4:
    case 5:
      return new UserError(
        'the broker refuses this user or password: check --username and --password',
      )
    default:
      return new Error(`refused the connection (return code ${returnCode})`)
  }
}

/** A certificate that does not hold will not hold at the next try either. */
export function certificateProblem(error: NodeJS.ErrnoException): UserError | undefined {
  if (!/CERT|SIGNATURE|SIGNED|ERR_TLS/.test(error.code ?? '')) return undefined
  return new UserError(
    `the broker's certificate does not hold: ${error.message} (${error.code}): check --ca and the host name`,
    { cause: error },
  )
}

/** What happened to a connection, for a person. */
export function describe(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException
  switch (code) {
    case 'ECONNREFUSED':
      return 'nothing listens there (ECONNREFUSED)'
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return `its name is not known (${code})`
    default:
      return message || code || 'lost'
  }
}
