import type { Command } from 'commander'
import type { Program } from '../shared/command.ts'
import type { Problem } from '../shared/config.ts'
import type { Document } from '../shared/fleet/envelope.ts'
import { registerAcl } from './fleet-command/acl.ts'
import { registerAudit } from './fleet-command/audit.ts'
import { registerMembers } from './fleet-command/members.ts'
import { registerPush } from './fleet-command/push.ts'
import { registerRehearse } from './fleet-command/rehearse.ts'
import { registerRollout } from './fleet-command/rollout.ts'
import { registerWatch } from './fleet-command/watch.ts'

/** What a manager knows of documents before they go out; it is the agent's own knowledge. */
export interface DocumentCheck {
  readDocument(file: string): Promise<Document>
  documentProblems(document: Document): Problem[]
}

/** `headgate fleet …` */
export function fleetProgram(loadCheck: () => Promise<DocumentCheck>): Program {
  return {
    register(command: Command) {
      registerMembers(command)
      registerWatch(command)
      registerPush(command, loadCheck)
      registerRehearse(command, loadCheck)
      registerRollout(command, loadCheck)
      registerAudit(command)
      registerAcl(command)
    },
  }
}
