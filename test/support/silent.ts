import { pino } from 'pino'
import type { Logger } from '../../shared/log.ts'

/** Says nothing. */
export const silent: Logger = pino({ level: 'silent' })
