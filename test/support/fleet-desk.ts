import { generateKeyPairSync } from 'node:crypto'
import { type Configuration, type Document, sign } from '../../shared/fleet/envelope.ts'

/** A manager's desk: signs for agent gw-001 what is asked for. */
export class FleetDesk {
  readonly keys = generateKeyPairSync('ed25519')

  /** A signed configuration, valid around `nowMs`. */
  configuration(
    version: number,
    document: Document,
    { nowMs = Date.now(), ...more }: Partial<Configuration> & { nowMs?: number } = {},
  ): Uint8Array {
    const target = more.group !== undefined ? {} : { agent: 'gw-001' }
    return sign(
      {
        kind: 'configuration',
        ...target,
        version,
        notBeforeMs: nowMs - 1_000,
        expiresMs: nowMs + 86_400_000,
        document,
        ...more,
      } as Configuration,
      this.keys.privateKey,
    )
  }

  command(
    id: string,
    command: string,
    given: Document = {},
    { agent = 'gw-001', expiresMs = Date.now() + 60_000 } = {},
  ): Uint8Array {
    const envelope = { kind: 'command', agent, id, command, arguments: given, expiresMs } as const
    return sign(envelope, this.keys.privateKey)
  }
}
