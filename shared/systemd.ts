import { execFile } from 'node:child_process'
import type { Logger } from './log.ts'

/**
 * Tells systemd, where it started this program, that the program is up, and then twice in each `WatchdogSec`
 * that its event loop still turns. A loop that is stuck says nothing more, and systemd ends and restarts it.
 * Elsewhere it does nothing.
 *
 * Node has no datagram sockets of Unix, which systemd listens on: its own tool carries the word, in a
 * process of some milliseconds. (sd_notify(3), sd_watchdog_enabled(3))
 */
export function reportToSystemd(
  log: Logger,
  environment: NodeJS.ProcessEnv = process.env,
): Disposable {
  const { NOTIFY_SOCKET: socket, WATCHDOG_USEC: watchdogUs } = environment
  if (!socket) return { [Symbol.dispose]() {} }
  const say = (word: string) =>
    execFile('systemd-notify', [word], { env: environment, timeout: 10_000 }, (error) => {
      if (error) log.error({ err: error, word }, 'systemd cannot be told: is systemd-notify there?')
    })
  say('READY=1')
  const timer = watchdogUs
    ? setInterval(() => say('WATCHDOG=1'), Number(watchdogUs) / 2000)
    : undefined
  timer?.unref()
  return { [Symbol.dispose]: () => clearInterval(timer) }
}
