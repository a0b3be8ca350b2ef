import type { X509Certificate } from 'node:crypto'
import { isAgentName } from '../../shared/fleet/topics.ts'

export type Role = 'agent' | 'manager' | 'reader' | 'collector'

/** Somebody the fleet knows by a certificate. */
export interface Who {
  role: Role
  /** An agent's name, or what a manager, a reader or a collector is called. */
  name: string
}

/** With a colon, which no agent's name has: a broker that knows only the common name tells them apart too. */
const otherPattern = /^(manager|reader|collector):([A-Za-z0-9_.@-]{1,64})$/

/** The common name under which a certificate is made out to somebody. */
export function commonNameOf({ role, name }: Who): string {
  return role === 'agent' ? name : `${role}:${name}`
}

/** @returns undefined where the name is none of ours */
export function readCommonName(commonName: unknown): Who | undefined {
  if (typeof commonName !== 'string') return undefined // None, or several.
  if (isAgentName(commonName)) return { role: 'agent', name: commonName }
  const [, role, name] = otherPattern.exec(commonName) ?? []
  return role && name ? { role: role as Role, name } : undefined
}

/** Whom a certificate is made out to; whether it counts is for others to say. */
export function whoIs(certificate: X509Certificate): Who | undefined {
  const { subject } = certificate.toLegacyObject() as { subject?: { CN?: unknown } }
  return readCommonName(subject?.CN)
}
