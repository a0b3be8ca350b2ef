import { brokerAddress, type SourceConfig } from './config.ts'
import { SourceFailure, type SourceFailureCode } from './failure.ts'

/** What a CONNACK of MQTT 3.1.1 refuses with, and what to do about it. */
const connackCodes: Readonly<Record<number, string>> = {
  1: 'it does not speak this MQTT version: try the other source.version',
  2: 'it does not take this client id: choose another source.clientId',
  3: 'its MQTT service is not available',
  4: 'bad user name or password: check source.username and source.password',
  5: 'not authorised: check source.username and source.password',
}

/** Reason codes of MQTT 5 that a CONNACK, SUBACK or DISCONNECT may carry. */
const reasonCodes: Readonly<Record<number, string>> = {
  128: 'unspecified error',
  129: 'it finds our packet malformed',
  130: 'it finds that we broke the protocol',
  131: 'implementation specific error',
  132: 'it does not speak MQTT 5: set source.version to 3.1.1',
  133: 'it does not take this client id: choose another source.clientId',
  134: 'bad user name or password: check source.username and source.password',
  135: 'not authorised: check source.username and source.password, and what the broker lets this user read',
  136: 'the server is not available',
  137: 'the server is busy',
  138: 'this client is banned',
  139: 'the server is shutting down',
  140: 'bad authentication method',
  141: 'it has not heard from us in time',
  142: 'another client has connected with the same client id: choose another source.clientId',
  143: 'it does not take this topic filter',
  144: 'it does not take this topic',
  145: 'packet id in use',
  147: 'more messages un-acknowledged than allowed',
  149: 'packet too large',
  151: 'quota exceeded',
  152: 'ended by an administrator',
  154: 'it keeps no retained messages',
  155: 'it does not support this QoS',
  156: 'use another server',
  157: 'the server has moved',
  158: 'it does not support shared subscriptions',
  159: 'connection rate exceeded',
  160: 'maximum connect time',
  162: 'it does not support wildcards in subscriptions',
}

export function explainConnack(code: number, version5: boolean, reason?: string): string {
  const meaning = (version5 && code >= 128 ? reasonCodes : connackCodes)[code]
  return withReason(meaning, code, reason)
}

/** Of MQTT 5; a SUBACK of 3.1.1 knows only 128. */
export function explainReason(code: number, reason?: string): string {
  return withReason(reasonCodes[code], code, reason)
}

function withReason(meaning: string | undefined, code: number, reason: string | undefined): string {
  const said = reason ? `; it says: ${JSON.stringify(reason.slice(0, 200))}` : ''
  return `${meaning ?? 'no known reason'} (code ${code}${said})`
}

/** What went wrong below MQTT, by the error codes of Node's sockets and TLS. */
export function explainDial(
  error: unknown,
  config: Pick<SourceConfig, 'url'>,
  otherwise: SourceFailureCode = 'SOURCE_UNREACHABLE',
): SourceFailure {
  if (error instanceof SourceFailure) return error
  const { code = '', message = String(error) } = error as { code?: string; message?: string }
  const { host, port } = brokerAddress(config.url)
  const make = (kind: SourceFailureCode, detail: string) =>
    new SourceFailure(kind, detail, { cause: error })
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN')
    return make('SOURCE_UNREACHABLE', `no address for ${host} (${code}): check source.url and DNS`)
  if (code === 'ECONNREFUSED')
    return make(
      'SOURCE_UNREACHABLE',
      `nothing listens on ${host}:${port}: is the broker running? check source.url`,
    )
  if (['EHOSTUNREACH', 'ENETUNREACH', 'ETIMEDOUT', 'EHOSTDOWN'].includes(code))
    return make('SOURCE_UNREACHABLE', `no way to ${host}:${port} (${code}): check the network`)
  const tls = tlsAdvice(code, host)
  if (tls) return make('SOURCE_TLS', `${tls} (${code})`)
  return make(otherwise, code ? `${message} (${code})` : message)
}

function tlsAdvice(code: string, host: string): string | undefined {
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID')
    return `its certificate is not for ${host}: set source.tls.servername to a name that is in it`
  if (code === 'CERT_HAS_EXPIRED' || code === 'CERT_NOT_YET_VALID')
    return "its certificate is not valid now: check it, and this machine's clock"
  if (/SELF_SIGNED|UNABLE_TO_(GET|VERIFY)|CERT_UNTRUSTED/.test(code))
    return 'its certificate is signed by nobody we trust: set source.tls.ca to the file of its CA'
  if (/ALERT/.test(code)) return 'it refused ours: check source.tls.cert and source.tls.key'
  return /^(ERR_SSL|ERR_TLS|EPROTO|CERT_)/.test(code)
    ? 'it speaks no TLS that we do: check the port in source.url'
    : undefined
}
