import { X509Certificate } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import type { Command } from 'commander'
import { integerOption, repeated } from '../../shared/command.ts'
import { systemClock } from '../../shared/system.ts'
import { makeBrokerCertificate } from '../fleet/files.ts'
import { mosquittoFiles } from '../fleet/mosquitto.ts'
import { commonNameOf, whoIs } from '../fleet/who.ts'
import { type FleetOptions, openApi, withFleet } from './options.ts'

interface AclOptions extends FleetOptions {
  out?: string
  port: number
  host?: string[]
  manager?: string[]
}

/** Adds `headgate fleet acl`. */
export function registerAcl(command: Command): void {
  withFleet(command.command('acl'))
    .description(
      "the built-in broker's rules for a mosquitto, and the list of revoked certificates",
    )
    .option('--out <dir>', 'write the files here: configuration, rules, ca.pem, crl.pem')
    .option('--port <port>', "mosquitto's port", integerOption('--port', 1), 8883)
    .option(
      '--host <name...>',
      'with --out: make a certificate for mosquitto on this host',
      repeated,
    )
    .option('--manager <name...>', 'managers beside you', repeated)
    .addHelpText(
      'after',
      '\nExamples:\n  headgate fleet acl\n' +
        '  headgate fleet acl --out /etc/mosquitto/headgate --host broker.example.com\n\n' +
        'mosquitto reads the rules and the list anew on SIGHUP; connections that are open stay so until it restarts.',
    )
    .action(acl)
}

async function acl(options: AclOptions): Promise<void> {
  const { out, port, host = [], manager = [] } = options
  const { files, client } = await openApi(options)
  await using _ = client
  const me = whoIs(new X509Certificate(files.cert))
  const managers = new Set(manager.map((name) => commonNameOf({ role: 'manager', name })))
  if (me) managers.add(commonNameOf(me))
  const folder = out === undefined ? '/etc/mosquitto/headgate' : resolve(out)
  const written = mosquittoFiles(folder, port, [...managers])
  if (out === undefined) {
    for (const [name, text] of Object.entries(written))
      process.stdout.write(`### ${folder}/${name}\n${text}\n`)
    return
  }
  await mkdir(join(folder, 'data'), { recursive: true })
  for (const [name, text] of Object.entries(written)) await writeFile(join(folder, name), text)
  await writeFile(join(folder, 'ca.pem'), files.ca)
  await writeFile(join(folder, 'crl.pem'), await client.revocationList())
  if (host.length > 0) {
    const made = await makeBrokerCertificate(options.fleet, host, systemClock.wallMs())
    await writeFile(join(folder, 'server.pem'), made.pem)
    await writeFile(join(folder, 'server-key.pem'), made.keyPem, { mode: 0o600 })
  }
  process.stdout.write(`${folder}: mosquitto -c ${join(folder, 'headgate.conf')}\n`)
}
