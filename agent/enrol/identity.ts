import { createPrivateKey, generateKeyPairSync, type KeyObject, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { chmod, mkdir, open, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { UserError } from '../../shared/failure.ts'
import type { Labels } from '../../shared/fleet/groups.ts'

/*
 * Who the gateway is: `<data>/identity/`
 *
 *   key.pem            its private key, P-256, made here; it never leaves
 *   certificate.pem    who the collector says that it is
 *   ca.pem             whom it believes
 *   config-key.pem     public key that configurations and commands are checked against
 *   identity.json      { agent, labels, fleetBroker, collector }
 *
 * The certificate is written last: with it, there is an identity. Renewal replaces this one file.
 */
export interface Identity {
  agent: string
  labels: Labels
  /** Where the fleet's MQTT is. */
  fleetBroker: string
  /** The collector's address. */
  collector: string
}

/** What a collector gives to a gateway. */
export interface Papers extends Omit<Identity, 'collector'> {
  certificate: string
  ca: string
  configKey: string
}

export function identityFolder(data: string): string {
  return join(data, 'identity')
}

/** @returns undefined where there is none yet */
export async function readIdentity(
  folder: string,
): Promise<(Identity & { certificate: X509Certificate }) | undefined> {
  try {
    const certificate = new X509Certificate(await readFile(join(folder, 'certificate.pem')))
    const identity = JSON.parse(await readFile(join(folder, 'identity.json'), 'utf8')) as Identity
    return { ...identity, certificate }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

/** What a TLS connection shows and believes; undefined where there is no identity yet. */
export function identityTls(folder: string): { cert: Buffer; key: Buffer; ca: Buffer } | undefined {
  try {
    const [cert, key, ca] = ['certificate.pem', 'key.pem', 'ca.pem'].map((name) =>
      readFileSync(join(folder, name)),
    )
    return { cert: cert!, key: key!, ca: ca! }
  } catch {
    return undefined
  }
}

/** The gateway's key, made when it is asked for first; a request that is repeated is for the same key. */
export async function gatewayKey(folder: string): Promise<KeyObject> {
  await mkdir(folder, { recursive: true, mode: 0o700 })
  await chmod(folder, 0o700)
  const path = join(folder, 'key.pem')
  const pem = await readFile(path, 'utf8').catch(() => undefined)
  if (pem) {
    try {
      return createPrivateKey(pem)
    } catch (cause) {
      throw new UserError(`${path}: the key is damaged: remove ${folder} and enrol again`, {
        cause,
      })
    }
  }
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  await replace(folder, 'key.pem', privateKey.export({ type: 'pkcs8', format: 'pem' }) as string)
  return privateKey
}

/** What enrolment gives. */
export async function writePapers(
  folder: string,
  papers: Papers,
  collector: string,
): Promise<void> {
  await replace(folder, 'ca.pem', papers.ca)
  await replace(folder, 'config-key.pem', papers.configKey)
  await writeRenewal(folder, papers, collector)
}

/**
 * What renewal gives. Whom the gateway believes stays as it was at enrolment, so that whoever takes the
 * collector over later does not get the gateways with it.
 */
export async function writeRenewal(
  folder: string,
  papers: Papers,
  collector: string,
): Promise<void> {
  const { agent, labels, fleetBroker } = papers
  await writeIdentity(folder, { agent, labels, fleetBroker, collector })
  await replace(folder, 'certificate.pem', papers.certificate)
}

export function writeIdentity(folder: string, identity: Identity): Promise<void> {
  return replace(folder, 'identity.json', `${JSON.stringify(identity, null, 2)}\n`)
}

/** Old or new, whenever the power goes. */
async function replace(folder: string, name: string, text: string): Promise<void> {
  const path = join(folder, name)
  const file = await open(`${path}.new`, 'w', 0o600)
  try {
    await file.writeFile(text)
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(`${path}.new`, path)
  const directory = await open(folder, 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}
