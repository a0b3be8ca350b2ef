import { createPublicKey, type KeyObject, sign } from 'node:crypto'

/*
 * A certificate request, PKCS #10 (RFC 2986), in DER:
 *
 *   SEQUENCE
 *     SEQUENCE                       what is signed
 *       INTEGER 0
 *       SEQUENCE SET SEQUENCE        subject: CN=<name>
 *         OID 2.5.4.3, UTF8String
 *       SubjectPublicKeyInfo         as Node exports it
 *       [0]                          no attributes
 *     SEQUENCE OID 1.2.840.10045.4.3.2     ECDSA with SHA-256
 *     BIT STRING                     signature
 *
 * Written here because the libraries that can are larger than the agent's whole fleet part, and the
 * gateway only ever writes this one shape; whoever reads foreign ones uses a library.
 */
const tag = {
  integer: 0x02,
  bitString: 0x03,
  oid: 0x06,
  utf8: 0x0c,
  sequence: 0x30,
  set: 0x31,
  attributes: 0xa0,
}
const commonName = Buffer.from([0x55, 0x04, 0x03])
const ecdsaWithSha256 = Buffer.from([0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02])

/** A request for a certificate for a P-256 key (PEM). The name in it is a hint: the collector knows better. */
export function certificateRequest(privateKey: KeyObject, name: string): string {
  const publicKey = createPublicKey(privateKey).export({ type: 'spki', format: 'der' })
  const attribute = der(tag.sequence, der(tag.oid, commonName), der(tag.utf8, Buffer.from(name)))
  const signed = der(
    tag.sequence,
    der(tag.integer, Buffer.from([0])),
    der(tag.sequence, der(tag.set, attribute)),
    publicKey,
    der(tag.attributes),
  )
  const request = der(
    tag.sequence,
    signed,
    der(tag.sequence, der(tag.oid, ecdsaWithSha256)),
    der(tag.bitString, Buffer.from([0]), sign('sha256', signed, privateKey)),
  )
  const lines = request.toString('base64').replace(/.{64}(?=.)/g, '$&\n')
  return `-----BEGIN CERTIFICATE REQUEST-----\n${lines}\n-----END CERTIFICATE REQUEST-----\n`
}

function der(type: number, ...parts: Buffer[]): Buffer {
  const content = Buffer.concat(parts)
  const { length } = content
  const head =
    length < 0x80
      ? [type, length]
      : length < 0x100
        ? [type, 0x81, length]
        : [type, 0x82, length >> 8, length & 0xff]
  return Buffer.concat([Buffer.from(head), content])
}
