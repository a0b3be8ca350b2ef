import { createPublicKey, type KeyObject } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { UserError } from '../../shared/failure.ts'
import type { Labels } from '../../shared/fleet/groups.ts'
import { identityFolder, readIdentity } from '../enrol/identity.ts'

/** What an agent's enrolment has made of it. */
export interface Membership {
  agent: string
  labels: Labels
  /** Where the fleet broker is, unless the configuration says otherwise. */
  fleetBroker: string
  /** Configurations and commands are checked against it. */
  configKey: KeyObject
  /** PEM files, read anew whenever they are used: they are renewed. */
  files: { ca: string; cert: string; key: string }
}

/**
 * Undefined where the agent is in no fleet.
 *
 * @throws UserError where its identity is damaged
 */
export async function readMembership(data: string): Promise<Membership | undefined> {
  const folder = identityFolder(data)
  try {
    const identity = await readIdentity(folder)
    if (!identity) return undefined
    const { agent, labels, fleetBroker } = identity
    return {
      agent,
      labels,
      fleetBroker,
      configKey: createPublicKey(await readFile(join(folder, 'config-key.pem'))),
      files: {
        ca: join(folder, 'ca.pem'),
        cert: join(folder, 'certificate.pem'),
        key: join(folder, 'key.pem'),
      },
    }
  } catch (cause) {
    throw new UserError(
      `${folder}: the identity cannot be used (${(cause as Error).message}): enrol the agent again`,
      { cause },
    )
  }
}
