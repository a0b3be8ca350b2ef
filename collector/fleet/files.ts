import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  X509Certificate,
} from 'node:crypto'
import { chmod, mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { UserError } from '../../shared/failure.ts'
import { Authority } from './authority.ts'
import { commonNameOf, type Who } from './who.ts'

/*
 * A fleet's folder, made by `headgate fleet init`:
 *
 *   fleet.json            address of the collector
 *   ca.pem                the authority's certificate
 *   config-public.pem     what configurations and commands are checked against
 *   collector/            what only the collector needs: ca-key.pem, server.pem, server-key.pem
 *   manager/              what only a manager needs: certificate.pem, key.pem, config-key.pem
 *
 * A collector elsewhere gets all but `manager/`; a manager's desk all but `collector/`.
 */
const places = {
  about: 'fleet.json',
  ca: 'ca.pem',
  configPublic: 'config-public.pem',
  caKey: 'collector/ca-key.pem',
  server: 'collector/server.pem',
  serverKey: 'collector/server-key.pem',
  manager: 'manager/certificate.pem',
  managerKey: 'manager/key.pem',
  configKey: 'manager/config-key.pem',
} as const
type Place = keyof typeof places

/** Why a file may not be there, by the folder that it is in. */
const missing: Record<string, string> = {
  fleet: 'make a fleet with `headgate fleet init`, or name its folder with --fleet',
  collector: "only the collector's own copy of the folder has it",
  manager: "only a manager's own copy of the folder has it",
}

const dayMs = 86_400_000
const serverLifetimeMs = 397 * dayMs
const personLifetimeMs = 2 * 365 * dayMs
/** The collector makes itself a new certificate when the old one has less left. */
const renewServerMs = 60 * dayMs

export interface InitOptions {
  folder: string
  /** Address under which gateways and managers reach the collector. */
  url: string
  /** Further DNS names and addresses of the collector. */
  hosts: readonly string[]
  /** What the first manager is called. */
  manager: string
  /** An authority that is there already (PEM). */
  existing?: { certificate: string; key: string }
  nowMs: number
}

/** Makes a fleet. @throws UserError when there is one already, or the authority cannot be used */
export async function initFleet(options: InitOptions): Promise<void> {
  const { folder, url, hosts, manager, existing, nowMs } = options
  for (const part of ['', 'collector', 'manager']) await makePrivateFolder(join(folder, part))
  const { authority, keyPem } = await openAuthority(existing, nowMs)
  // The first file says that there is a fleet: it is written only where none is.
  await writeNew(folder, 'caKey', keyPem, 0o600)
  const host = new URL(url).hostname.replace(/^\[|\]$/g, '')
  const names = [...new Set([host, ...hosts, 'localhost', '127.0.0.1', '::1'])]
  const server = await authority.make({
    commonName: commonNameOf({ role: 'collector', name: 'collector' }),
    lifetimeMs: serverLifetimeMs,
    nowMs,
    names,
  })
  const configKeys = generateKeyPairSync('ed25519')
  await writeNew(folder, 'serverKey', server.keyPem, 0o600)
  await writeNew(folder, 'server', server.pem, 0o644)
  await writeNew(folder, 'configKey', pkcs8(configKeys.privateKey), 0o600)
  const publicPem = configKeys.publicKey.export({ type: 'spki', format: 'pem' }) as string
  await writeNew(folder, 'configPublic', publicPem, 0o644)
  await writePerson(authority, folder, { role: 'manager', name: manager }, nowMs)
  await writeNew(folder, 'ca', authority.certificatePem, 0o644)
  const about = { url, names, createdAt: new Date(nowMs).toISOString() }
  await writeNew(folder, 'about', `${JSON.stringify(about, null, 2)}\n`, 0o644)
}

/** Makes the folder of another manager, with the signing key of the first, or of a reader, without. */
export async function addPerson(
  folder: string,
  to: string,
  { role, name }: { role: 'manager' | 'reader'; name: string },
  nowMs: number,
): Promise<void> {
  const authority = await readAuthority(folder)
  for (const part of ['', 'manager']) await makePrivateFolder(join(to, part))
  await writePerson(authority, to, { role, name }, nowMs)
  if (role === 'manager') await writeNew(to, 'configKey', await read(folder, 'configKey'), 0o600)
  for (const place of ['configPublic', 'ca', 'about'] as const)
    await writeNew(to, place, await read(folder, place), 0o644)
}

async function writePerson(
  authority: Authority,
  folder: string,
  who: Who,
  nowMs: number,
): Promise<void> {
  const commonName = commonNameOf(who)
  const made = await authority.make({ commonName, lifetimeMs: personLifetimeMs, nowMs })
  await writeNew(folder, 'managerKey', made.keyPem, 0o600)
  await writeNew(folder, 'manager', made.pem, 0o644)
}

/** A certificate for a stock broker; it needs the authority's key. @throws UserError that names the file */
export async function makeBrokerCertificate(
  folder: string,
  names: readonly string[],
  nowMs: number,
) {
  const commonName = commonNameOf({ role: 'collector', name: 'broker' })
  const authority = await readAuthority(folder)
  return authority.make({ commonName, lifetimeMs: serverLifetimeMs, nowMs, names })
}

/** What the collector has of a fleet. */
export interface CollectorFiles {
  authority: Authority
  /** Checks the signature of configurations and commands. */
  configKey: KeyObject
  configKeyPem: string
  server: { cert: string; key: string }
}

/** @throws UserError that names the file */
export async function readCollectorFiles(folder: string, nowMs: number): Promise<CollectorFiles> {
  const authority = await readAuthority(folder)
  const configKeyPem = await read(folder, 'configPublic')
  let server = { cert: await read(folder, 'server'), key: await read(folder, 'serverKey') }
  const certificate = new X509Certificate(server.cert)
  // A power cut in the middle of a renewal leaves the new key with the old certificate.
  const isWhole = certificate.checkPrivateKey(createPrivateKey(server.key))
  if (!isWhole || Date.parse(certificate.validTo) - nowMs < renewServerMs) {
    const made = await authority.make({
      commonName: commonNameOf({ role: 'collector', name: 'collector' }),
      lifetimeMs: serverLifetimeMs,
      nowMs,
      names: namesOf(certificate),
    })
    server = { cert: made.pem, key: made.keyPem }
    // Where the folder may not be written, the next start makes another one.
    await replace(folder, 'serverKey', made.keyPem)
      .then(() => replace(folder, 'server', made.pem))
      .catch(() => {})
  }
  return { authority, configKey: createPublicKey(configKeyPem), configKeyPem, server }
}

/** What everybody knows of a fleet. @throws UserError that names the file */
export async function readAbout(folder: string): Promise<{ url: string }> {
  return JSON.parse(await read(folder, 'about')) as { url: string }
}

/** With what a manager or a reader comes to the collector. */
export interface PersonFiles {
  url: string
  ca: string
  cert: string
  key: string
}

/** @throws UserError that names the file */
export async function readPersonFiles(folder: string): Promise<PersonFiles> {
  const { url } = await readAbout(folder)
  const [ca, cert, key] = await Promise.all(
    (['ca', 'manager', 'managerKey'] as const).map((place) => read(folder, place)),
  )
  return { url, ca: ca!, cert: cert!, key: key! }
}

/** What a manager has of a fleet. */
export interface ManagerFiles extends PersonFiles {
  configKey: KeyObject
  configPublic: KeyObject
}

/** @throws UserError that names the file */
export async function readManagerFiles(folder: string): Promise<ManagerFiles> {
  const configKey = createPrivateKey(await read(folder, 'configKey'))
  return {
    ...(await readPersonFiles(folder)),
    configKey,
    configPublic: createPublicKey(configKey),
  }
}

async function readAuthority(folder: string): Promise<Authority> {
  const [ca, key] = [await read(folder, 'ca'), await read(folder, 'caKey')]
  try {
    return new Authority(ca, key)
  } catch (cause) {
    throw new UserError(`${folder}: ${(cause as Error).message}`, { cause })
  }
}

async function openAuthority(existing: InitOptions['existing'], nowMs: number) {
  if (!existing) return Authority.create('Headgate fleet authority', nowMs)
  try {
    return { authority: new Authority(existing.certificate, existing.key), keyPem: existing.key }
  } catch (cause) {
    throw new UserError(`--ca: ${(cause as Error).message}`, { cause })
  }
}

async function makePrivateFolder(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 })
  await chmod(folder, 0o700)
}

async function writeNew(folder: string, place: Place, text: string, mode: number): Promise<void> {
  const path = join(folder, places[place])
  try {
    await writeFile(path, text, { mode, flag: 'wx', flush: true })
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === 'EEXIST')
      throw new UserError(`${path} is there already: a fleet is made once; give another --dir`, {
        cause,
      })
    throw new UserError(`${path}: cannot write (${code})`, { cause })
  }
}

async function replace(folder: string, place: Place, text: string): Promise<void> {
  const path = join(folder, places[place])
  await writeFile(`${path}.new`, text, { mode: 0o600, flush: true })
  await rename(`${path}.new`, path)
}

async function read(folder: string, place: Place): Promise<string> {
  const path = join(folder, places[place])
  try {
    return await readFile(path, 'utf8')
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    const part = places[place].split('/')[0]
    const why = code !== 'ENOENT' ? code : `no such file: ${missing[part!] ?? missing.fleet}`
    throw new UserError(`${path}: ${why}`, { cause })
  }
}

function namesOf(certificate: X509Certificate): string[] {
  return (certificate.subjectAltName ?? '')
    .split(', ')
    .map((name) => name.replace(/^(DNS|IP Address):/, ''))
}

function pkcs8(key: KeyObject): string {
  return key.export({ type: 'pkcs8', format: 'pem' }) as string
}
