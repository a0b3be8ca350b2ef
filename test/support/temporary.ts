import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { cleanUp, type Test } from './clean-up.ts'

/** A fresh directory that is gone when the test ends. */
export async function temporaryDirectory(t: Test): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'headgate-test-'))
  cleanUp(t, () => rm(directory, { recursive: true, force: true }))
  return directory
}
