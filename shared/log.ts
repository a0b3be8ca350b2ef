import { type Logger, pino } from 'pino'
import pretty from 'pino-pretty'

export type { Logger }

/**
 * Log lines on stderr, so that stdout stays free for what a command prints: JSON, one a line, or for a
 * person at a terminal plain text. `HEADGATE_LOG` sets the level (default `info`).
 */
export function makeLogger(name: string): Logger {
  const options = { name, level: process.env.HEADGATE_LOG ?? 'info' }
  return process.stderr.isTTY
    ? pino(
        options,
        pretty({ destination: 2, sync: true, ignore: 'pid,hostname', translateTime: 'HH:MM:ss' }),
      )
    : pino(options, pino.destination({ dest: 2, sync: true }))
}
