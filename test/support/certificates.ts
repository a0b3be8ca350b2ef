import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { needs } from './needs.ts'
import { temporaryDirectory } from './temporary.ts'

/** Files of a certificate authority made for one test, and of what it has signed. */
export interface Certificates {
  ca: string
  server: { cert: string; key: string }
  client: { cert: string; key: string }
}

/**
 * Undefined when openssl is not installed and the test was skipped.
 *
 * @param serverName what the server's certificate is for, as openssl writes it: `DNS:…` or `IP:…`
 * @param intermediate whether the authority is itself signed by another one, whose certificate nobody has
 */
export async function makeCertificates(
  t: TestContext,
  serverName = 'IP:127.0.0.1',
  { intermediate = false } = {},
): Promise<Certificates | undefined> {
  const openssl = needs(t, 'openssl')
  if (!openssl) return undefined
  const directory = await temporaryDirectory(t)
  const at = (name: string) => join(directory, name)
  const run = (line: string) =>
    execFileSync(openssl, line.split(' '), { cwd: directory, stdio: ['ignore', 'ignore', 'pipe'] })
  const key = '-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
  const root = intermediate ? 'root' : 'ca'
  run(`req -x509 ${key} -keyout ${root}.key -out ${root}.pem -days 2 -subj /CN=test-${root}`)
  if (intermediate) {
    writeFileSync(at('ca.ext'), 'basicConstraints=critical,CA:TRUE')
    run(`req ${key} -keyout ca.key -out ca.csr -subj /CN=test-ca`)
    run(
      'x509 -req -in ca.csr -CA root.pem -CAkey root.key -CAcreateserial -days 2 -extfile ca.ext -out ca.pem',
    )
  }
  for (const [name, extensions] of [
    ['server', `subjectAltName=${serverName}`],
    ['client', 'extendedKeyUsage=clientAuth'],
  ] as const) {
    writeFileSync(at(`${name}.ext`), extensions)
    run(`req ${key} -keyout ${name}.key -out ${name}.csr -subj /CN=test-${name}`)
    run(
      `x509 -req -in ${name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ${name}.ext -out ${name}.pem`,
    )
  }
  return {
    ca: at('ca.pem'),
    server: { cert: at('server.pem'), key: at('server.key') },
    client: { cert: at('client.pem'), key: at('client.key') },
  }
}
