import { ConfigFailure } from '../../shared/config.ts'
import { UserError } from '../../shared/failure.ts'
import { type Document, open, sign, type Target } from '../../shared/fleet/envelope.ts'
import { groupProblem } from '../../shared/fleet/groups.ts'
import { systemClock } from '../../shared/system.ts'
import type { ManagerFiles } from '../fleet/files.ts'
import type { DocumentCheck } from '../fleet-command.ts'
import type { AgentView, FleetAccess } from './client.ts'
import { difference } from './difference.ts'
import { durationOption } from './options.ts'

/** A gateway's clock may be so far behind ours. */
const backdateMs = 5 * 60_000
const defaultExpiryMs = 365 * 86_400_000

/** Option of all commands that sign a configuration. */
export const expires = [
  '--expires <duration>',
  'it is not applied any more after',
  durationOption('--expires'),
  defaultExpiryMs,
] as const

/** @throws ConfigFailure with every problem, as the agent would tell them */
export async function readChecked(file: string, check: DocumentCheck): Promise<Document> {
  const document = await check.readDocument(file)
  const problems = check.documentProblems(document)
  if (problems.length > 0) throw new ConfigFailure(file, problems)
  return document
}

/** What a version was, as the collector or the broker keeps it; undefined where it does not. */
export async function documentOf(
  client: FleetAccess,
  files: ManagerFiles,
  version: number,
): Promise<Document | undefined> {
  const envelope = await client.envelope(version)
  return envelope && open('configuration', envelope, files.configPublic).document
}

/**
 * The version that an agent runs, which is not what it was last sent where that was taken back; undefined
 * for the gateway's own file. Who has not been heard of is taken to run what it was sent.
 */
export function runs({ reported, desired }: AgentView): number | undefined {
  return reported ? reported.version || undefined : desired
}

/** Prints what would change at an agent. */
export async function showDifference(
  client: FleetAccess,
  files: ManagerFiles,
  view: AgentView,
  document: Document,
): Promise<void> {
  const version = runs(view)
  if (version === undefined) {
    process.stdout.write(`${view.agent} runs its own file, which is not known here\n`)
    return
  }
  process.stdout.write(
    diffText(await documentOf(client, files, version), document, `version ${version}`),
  )
}

export function diffText(before: Document | undefined, after: Document, what: string): string {
  if (!before) return `what ${what} was is not known here\n`
  const changes = difference(before, after)
  return changes.length === 0
    ? `the same as ${what}\n`
    : `against ${what}\n${changes.map((line) => `  ${line}\n`).join('')}`
}

/** Signs, with the times that hold from now on. */
export function seal(
  files: ManagerFiles,
  target: Target,
  version: number,
  document: Document,
  lifeMs: number,
): Uint8Array {
  const nowMs = systemClock.wallMs()
  const times = { notBeforeMs: nowMs - backdateMs, expiresMs: nowMs + lifeMs }
  return sign({ kind: 'configuration', ...target, version, ...times, document }, files.configKey)
}

export function checkedGroup(group: string): string {
  const problem = groupProblem(group)
  if (problem) throw new UserError(`--group: ${problem}`, { exitCode: 2 })
  return group
}
