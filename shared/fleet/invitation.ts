/**
 * What lets a gateway into a fleet once: a secret, and by what it knows the collector before it has any
 * certificate. As text `hg1.<secret>.<pin>`, both in base64url.
 */
export interface Invitation {
  /** 128 bits. */
  secret: Uint8Array
  /** SHA-256 of the authority's certificate as DER. */
  pin: Uint8Array
}

const secretBytes = 16
const pinBytes = 32

export function formatInvitation({ secret, pin }: Invitation): string {
  return `hg1.${Buffer.from(secret).toString('base64url')}.${Buffer.from(pin).toString('base64url')}`
}

/** @returns undefined when it is none */
export function parseInvitation(text: string): Invitation | undefined {
  const [, secretText, pinText] =
    /^hg1\.([A-Za-z0-9_-]{22})\.([A-Za-z0-9_-]{43})$/.exec(text.trim()) ?? []
  if (!secretText || !pinText) return undefined
  const secret = new Uint8Array(Buffer.from(secretText, 'base64url'))
  const pin = new Uint8Array(Buffer.from(pinText, 'base64url'))
  return secret.length === secretBytes && pin.length === pinBytes ? { secret, pin } : undefined
}
