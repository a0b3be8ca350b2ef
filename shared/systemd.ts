import { execFile } from 'node:child_process'
import type { Logger } from './log.ts'

/**
 * Tells systemd, where it started this program, that the program is up, and then twice in each `WatchdogSec`
 * that it still turns. One whose event loop is stuck says nothing more, nor does one whose own work has been
 * stuck for a whole `WatchdogSec`: systemd ends and restarts it. Elsewhere it does nothing.
 *
 * Node has no datagram sockets of Unix, which systemd listens on: its own tool carries the word, in a
 * process of some milliseconds. (sd_notify(3), sd_watchdog_enabled(3))
 */
export function reportToSystemd(
  log: Logger,
  stuckForMs: () => number = () => 0,
  environment: NodeJS.ProcessEnv = process.env,
): Disposable {
  const { NOTIFY_SOCKET: socket, WATCHDOG_USEC: watchdogUs } = environment
  if (!socket) return { [Symbol.dispose]() {} }
  const say = (word: string) =>
    execFile('systemd-notify', [word], { env: environment, timeout: 10_000 }, (error) => {
      if (error) log.error({ err: error, word }, 'systemd cannot be told: is systemd-notify there?')
    })
  say('READY=1')
  if (!watchdogUs) return { [Symbol.dispose]() {} }
  const patienceMs = Number(watchdogUs) / 1000
  const timer = setInterval(() => {
    const stuckMs = stuckForMs()
    if (stuckMs < patienceMs) say('WATCHDOG=1')
    else
      log.error({ stuckMs: Math.round(stuckMs) }, 'stuck: systemd is about to end and restart this')
  }, patienceMs / 2)
  timer.unref()
  return { [Symbol.dispose]: () => clearInterval(timer) }
}
