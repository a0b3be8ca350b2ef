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
 */
export async function makeCertificates(
  t: TestContext,
  serverName = 'IP:127.0.0.1',
): Promise<Certificates | undefined> {
  const openssl = needs(t, 'openssl')
  if (!openssl) return undefined
  const directory = await temporaryDirectory(t)
  const at = (name: string) => join(directory, name)
  const run = (line: string) =>
    execFileSync(openssl, line.split(' '), { cwd: directory, stdio: ['ignore', 'ignore', 'pipe'] })
  const key = '-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
  run(`req -x509 ${key} -keyout ca.key -out ca.pem -days 2 -subj /CN=test-ca`)
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
