// Has to be there before the library, which fills it in.
import 'reflect-metadata'
import {
  createHash,
  createPrivateKey,
  type KeyObject,
  randomBytes,
  webcrypto,
  X509Certificate,
} from 'node:crypto'
import * as x509 from '@peculiar/x509'

type CryptoKey = webcrypto.CryptoKey
type CryptoKeyPair = webcrypto.CryptoKeyPair

x509.cryptoProvider.set(webcrypto)

const p256 = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const
const dayMs = 86_400_000
/** A gateway's clock may be a little behind ours. */
const backdateMs = 3_600_000
const authorityDays = 20 * 365
/** Far more than a request for one name and one P-256 key has. */
const maxRequestChars = 4_096

/** A certificate request that is not signed for; the message is fit for whoever sent it. */
export class BadRequest extends Error {}

export interface Issued {
  /** Hexadecimal, lower case, without leading zeros. */
  serial: string
  pem: string
  notAfterMs: number
}

export interface KeyAndCertificate extends Issued {
  keyPem: string
}

/** The fleet's certificate authority: whoever holds its key decides who is who. */
export class Authority {
  readonly certificatePem: string
  readonly certificate: X509Certificate
  readonly #key: KeyObject

  /** @throws TypeError when the key is not the certificate's, or the certificate is no authority's */
  constructor(certificatePem: string, keyPem: string) {
    this.certificatePem = certificatePem
    this.certificate = new X509Certificate(certificatePem)
    this.#key = createPrivateKey(keyPem)
    if (!this.certificate.ca) throw new TypeError('the certificate is no authority’s (CA:TRUE)')
    if (!this.certificate.checkPrivateKey(this.#key))
      throw new TypeError('the key does not belong to the certificate')
    signingAlgorithm(this.#key)
  }

  /** A new one, P-256, self-signed. */
  static async create(
    name: string,
    nowMs: number,
  ): Promise<{ authority: Authority; keyPem: string }> {
    const keys = await generate()
    const certificate = await x509.X509CertificateGenerator.createSelfSigned({
      name: [{ CN: [name] }],
      keys,
      serialNumber: newSerial(),
      notBefore: new Date(nowMs - backdateMs),
      notAfter: new Date(nowMs + authorityDays * dayMs),
      signingAlgorithm: p256,
      extensions: [
        new x509.BasicConstraintsExtension(true, 0, true),
        new x509.KeyUsagesExtension(
          x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign,
          true,
        ),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      ],
    })
    const keyPem = await exportKey(keys.privateKey)
    return { authority: new Authority(pemOf(certificate), keyPem), keyPem }
  }

  /** Signs for the key of a request under a name that we give, never the request's. */
  sign(request: CertificateRequest, commonName: string, lifetimeMs: number, nowMs: number) {
    return this.#issue(request.publicKey, { commonName, lifetimeMs, nowMs, names: [] })
  }

  /** Makes a key and a certificate for a client, or with `names` (DNS names and addresses) for a server. */
  async make(options: {
    commonName: string
    lifetimeMs: number
    nowMs: number
    names?: readonly string[]
  }): Promise<KeyAndCertificate> {
    const keys = await generate()
    const issued = await this.#issue(keys.publicKey, { names: [], ...options })
    return { ...issued, keyPem: await exportKey(keys.privateKey) }
  }

  /** The list of certificates that no longer count (PEM), for brokers that read such a list. */
  async revocationList(
    revoked: readonly { serial: string; atMs: number }[],
    nowMs: number,
    lifetimeMs: number,
  ): Promise<string> {
    const list = await x509.X509CrlGenerator.create({
      issuer: this.#subject,
      thisUpdate: new Date(nowMs - backdateMs),
      nextUpdate: new Date(nowMs + lifetimeMs),
      signingAlgorithm: signingAlgorithm(this.#key),
      signingKey: await this.#signingKey(),
      entries: revoked.map(({ serial, atMs }) => ({
        serialNumber: evenHex(serial),
        revocationDate: new Date(atMs),
      })),
    })
    return pemText('X509 CRL', list.rawData)
  }

  /** Whether we signed it; says nothing of its times. */
  vouchesFor(certificate: X509Certificate): boolean {
    return certificate.verify(this.certificate.publicKey)
  }

  get #subject(): string {
    return new x509.X509Certificate(this.certificatePem).subject
  }

  #signingKey(): Promise<CryptoKey> {
    return webcrypto.subtle.importKey(
      'pkcs8',
      this.#key.export({ type: 'pkcs8', format: 'der' }),
      signingAlgorithm(this.#key),
      false,
      ['sign'],
    ) as Promise<CryptoKey>
  }

  async #issue(
    publicKey: CryptoKey,
    options: { commonName: string; lifetimeMs: number; nowMs: number; names: readonly string[] },
  ): Promise<Issued> {
    const { commonName, names, lifetimeMs, nowMs } = options
    const usage =
      names.length > 0 ? x509.ExtendedKeyUsage.serverAuth : x509.ExtendedKeyUsage.clientAuth
    const serial = newSerial()
    // A certificate that outlives its authority is no use to anybody.
    const notAfterMs = Math.min(nowMs + lifetimeMs, Date.parse(this.certificate.validTo))
    const certificate = await x509.X509CertificateGenerator.create({
      subject: [{ CN: [commonName] }],
      issuer: this.#subject,
      publicKey,
      serialNumber: serial,
      notBefore: new Date(nowMs - backdateMs),
      notAfter: new Date(notAfterMs),
      signingAlgorithm: signingAlgorithm(this.#key),
      signingKey: await this.#signingKey(),
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([usage]),
        await x509.AuthorityKeyIdentifierExtension.create(
          new x509.X509Certificate(this.certificatePem).publicKey,
        ),
        ...(names.length > 0
          ? [new x509.SubjectAlternativeNameExtension(names.map(generalName))]
          : []),
      ],
    })
    return { serial: plainSerial(serial), pem: pemOf(certificate), notAfterMs }
  }
}

/** A serial as we write it, whoever wrote it: node and openssl use capitals, some drop zeros. */
export function plainSerial(serial: string): string {
  return serial.toLowerCase().replace(/^0+(?=.)/, '')
}

function evenHex(serial: string): string {
  return serial.length % 2 === 0 ? serial : `0${serial}`
}

function generalName(name: string): x509.JsonGeneralName {
  const isAddress = /^[\d.]+$/.test(name) || name.includes(':')
  return { type: isAddress ? 'ip' : 'dns', value: name }
}

/** What of a certificate request counts: its key. */
export interface CertificateRequest {
  publicKey: CryptoKey
  /** SHA-256 of the public key (SPKI), hexadecimal. */
  fingerprint: string
}

/**
 * Reads a certificate request (PKCS #10, PEM) from outside.
 *
 * @throws BadRequest when it is none, is not signed by its own key, or that key is not P-256
 */
export async function readRequest(pem: string): Promise<CertificateRequest> {
  const bad = (why: string, cause?: unknown) =>
    new BadRequest(`certificate request: ${why}`, { cause })
  if (pem.length > maxRequestChars) throw bad(`longer than ${maxRequestChars} characters`)
  let request: x509.Pkcs10CertificateRequest
  let publicKey: CryptoKey
  try {
    request = new x509.Pkcs10CertificateRequest(pem)
    publicKey = await request.publicKey.export(p256, ['verify'])
  } catch (cause) {
    throw bad('not PKCS #10 with a P-256 key', cause)
  }
  if (!(await request.verify().catch(() => false))) throw bad('not signed by its own key')
  const spki = Buffer.from(request.publicKey.rawData)
  return { publicKey, fingerprint: createHash('sha256').update(spki).digest('hex') }
}

function signingAlgorithm(key: KeyObject) {
  switch (key.asymmetricKeyType) {
    case 'rsa':
      return { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' } as const
    case 'ec': {
      const curve = key.asymmetricKeyDetails?.namedCurve
      if (curve === 'prime256v1') return p256
      if (curve === 'secp384r1')
        return { name: 'ECDSA', namedCurve: 'P-384', hash: 'SHA-384' } as const
    }
  }
  throw new TypeError('the authority’s key must be P-256, P-384 or RSA')
}

/** 128 bits, positive. */
function newSerial(): string {
  const bytes = randomBytes(16)
  bytes[0] = (bytes[0]! & 0x7f) | 0x40
  return bytes.toString('hex')
}

function generate(): Promise<CryptoKeyPair> {
  return webcrypto.subtle.generateKey(p256, true, ['sign', 'verify']) as Promise<CryptoKeyPair>
}

async function exportKey(key: CryptoKey): Promise<string> {
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', key as never))
  return createPrivateKey({ key: der, format: 'der', type: 'pkcs8' }).export({
    type: 'pkcs8',
    format: 'pem',
  }) as string
}

function pemOf(certificate: x509.X509Certificate): string {
  return pemText('CERTIFICATE', certificate.rawData)
}

function pemText(label: string, der: ArrayBuffer): string {
  const lines = Buffer.from(der)
    .toString('base64')
    .replace(/.{64}(?=.)/g, '$&\n')
  return `-----BEGIN ${label}-----\n${lines}\n-----END ${label}-----\n`
}
