import { z } from 'zod'
import { filePath } from '../../../shared/config.ts'

/** Keys that say how brokers are known and what lets us in. */
export const accessShape = {
  /** PEM file of the authority that the brokers' certificates are from; the link is TLS then. */
  ca: filePath().optional(),
  sasl: z
    .strictObject({
      mechanism: z.enum(['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512']).default('SCRAM-SHA-512'),
      username: z.string().min(1),
      /** File that holds it, in one line. */
      password: filePath(),
    })
    .optional(),
}
