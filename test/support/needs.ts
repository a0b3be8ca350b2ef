import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import type { TestContext } from 'node:test'

/** Debian package that brings a program, where it is not named like it. */
const packages: Record<string, string> = {
  mosquitto_sub: 'mosquitto-clients',
  'systemd-nspawn': 'systemd-container',
  'systemd-analyze': 'systemd',
  'qemu-aarch64-static': 'qemu-user-static',
  'dpkg-deb': 'dpkg',
  nsenter: 'util-linux',
  ip: 'iproute2',
  'swift-proxy-server': 'swift-proxy',
  'swift-account-server': 'swift-account',
  'swift-container-server': 'swift-container',
  'swift-object-server': 'swift-object',
}

/**
 * Path of a program that a test needs. Where it is absent the test is skipped, and says what to install;
 * in CI, or with HEADGATE_NO_SKIP=1, it fails instead.
 *
 * @returns undefined when the test has been skipped and should return
 */
export function needs(t: TestContext, program: string): string | undefined {
  // Daemons live in directories that are not on every user's PATH.
  const directories = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin']
  for (const directory of directories) {
    const path = join(directory, program)
    try {
      accessSync(path, constants.X_OK)
      return path
    } catch {
      // Not here.
    }
  }
  absent(t, `needs ${program}: apt-get install ${packages[program] ?? program}`)
  return undefined
}

/** Skips the test, saying why; where nothing may be skipped it fails. */
export function absent(t: Pick<TestContext, 'skip'>, why: string): void {
  if (process.env.CI === 'true' || process.env.HEADGATE_NO_SKIP === '1') throw new Error(why)
  t.skip(why)
}
