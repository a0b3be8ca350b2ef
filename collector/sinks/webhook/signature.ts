import { createHmac } from 'node:crypto'

const minSecretBytes = 24
const maxSecretBytes = 64

/**
 * Keys of secrets as they are handed out, `whsec_` and base64, one a line.
 *
 * @throws RangeError when there is none, or one is too short, too long or not base64
 */
export function parseSecrets(text: string): Buffer[] {
  const lines = text.split(/\s+/).filter((line) => line !== '')
  if (lines.length === 0) throw new RangeError('no secret in it')
  return lines.map((line) => {
    const base64 = line.replace(/^whsec_/, '')
    const key = Buffer.from(base64, 'base64')
    const isBase64 = /^[A-Za-z0-9+/]+={0,2}$/.test(base64)
    if (!isBase64 || key.length < minSecretBytes || key.length > maxSecretBytes)
      throw new RangeError(
        `a secret is ${minSecretBytes} to ${maxSecretBytes} bytes in base64, behind whsec_`,
      )
    return key
  })
}

/**
 * Headers of a message; one signature for each key.
 *
 * @param timestampS of this try, seconds since 1970
 * Source: Standard Webhooks 1.0.0, symmetric signatures (v1).
 */
export function signedHeaders(
  id: string,
  timestampS: number,
  body: string,
  keys: readonly Buffer[],
): Record<string, string> {
  const signatures = keys.map((key) => {
    const hmac = createHmac('sha256', key).update(`${id}.${timestampS}.${body}`)
    return `v1,${hmac.digest('base64')}`
  })
  return {
    'webhook-id': id,
    'webhook-timestamp': String(timestampS),
    'webhook-signature': signatures.join(' '),
  }
}
