import { UserError } from '../failure.ts'
import { root } from './paths.ts'
import { runTool } from './tool.ts'

/**
 * The time that everything in a package bears, Unix seconds, so that two builds of the same sources are the
 * same: SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch/), or that of the last
 * commit.
 */
export async function sourceEpochS(environment: NodeJS.ProcessEnv = process.env): Promise<number> {
  const given = environment.SOURCE_DATE_EPOCH ?? (await lastCommit())
  const seconds = Number(given)
  if (!/^\d+$/.test(given) || !Number.isSafeInteger(seconds))
    throw new UserError(`SOURCE_DATE_EPOCH is not a number of seconds: ${given}`, { exitCode: 2 })
  return seconds
}

async function lastCommit(): Promise<string> {
  try {
    return (await runTool('git', ['-C', root, 'log', '-1', '--format=%ct'])).trim()
  } catch {
    throw new UserError('no git history here to take the time from: set SOURCE_DATE_EPOCH', {
      exitCode: 2,
    })
  }
}
