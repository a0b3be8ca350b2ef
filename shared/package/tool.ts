import { execFile } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import { promisify } from 'node:util'
import { UserError } from '../failure.ts'

/** Debian package that brings a program, where it is not named like it. */
const packages: Record<string, string> = {
  'dpkg-deb': 'dpkg',
  strip: 'binutils',
  'aarch64-linux-gnu-strip': 'binutils-aarch64-linux-gnu',
  'x86_64-linux-gnu-strip': 'binutils-x86-64-linux-gnu',
  xz: 'xz-utils',
}

/** @throws UserError, exit code 2, when a program that packaging needs is not installed */
export function needTool(name: string): string {
  for (const directory of (process.env.PATH ?? '').split(delimiter)) {
    const path = join(directory, name)
    try {
      accessSync(path, constants.X_OK)
      return path
    } catch {
      // Not here.
    }
  }
  throw new UserError(`${name} is missing: apt-get install ${packages[name] ?? name}`, {
    exitCode: 2,
  })
}

/**
 * Runs a tool to its end, its locale and time zone fixed, and returns what it printed.
 *
 * @throws UserError with the last line that it said, when it fails
 */
export async function runTool(
  program: string,
  args: readonly string[],
  options: { cwd?: string; env?: NodeJS.ProcessEnv } = {},
): Promise<string> {
  try {
    const { stdout } = await promisify(execFile)(program, args, {
      maxBuffer: 64 * 1024 * 1024,
      ...options,
      env: { ...process.env, LC_ALL: 'C', TZ: 'UTC', ...options.env },
    })
    return stdout
  } catch (cause) {
    const { stderr, message } = cause as { stderr?: string; message: string }
    const said = stderr?.trim().split('\n').at(-1) || message
    throw new UserError(`${program} failed: ${said}`, { cause })
  }
}
