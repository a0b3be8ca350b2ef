import { z } from 'zod'
import { isLabelName } from '../../shared/fleet/groups.ts'
import { isAgentName } from '../../shared/fleet/topics.ts'

const agentName = z.string().refine(isAgentName, 'no name of an agent')
const labels = z
  .record(z.string().refine(isLabelName, 'no name of a label'), z.string().max(256))
  .refine((given) => Object.keys(given).length <= 32, 'more than 32 labels')
const base64 = z.base64().transform((text) => new Uint8Array(Buffer.from(text, 'base64')))
const amount = z.union([
  z.strictObject({ percent: z.number().min(0).max(100) }),
  z.strictObject({ count: z.int().min(0) }),
])
const milliseconds = z
  .int()
  .min(0)
  .max(366 * 86_400_000)

/** What the fleet's routes are sent. */
export const bodies = {
  enrol: z.strictObject({ token: z.string().max(64), request: z.string().max(8_192) }),
  renew: z.strictObject({ request: z.string().max(8_192) }),
  invite: z.strictObject({
    invitations: z
      .array(
        z.strictObject({
          agent: agentName,
          labels: labels.default({}),
          hash: z.string().regex(/^[0-9a-f]{64}$/),
        }),
      )
      .min(1)
      .max(20_000),
    ttlMs: z
      .int()
      .min(1_000)
      .max(366 * 86_400_000),
  }),
  revoke: z.strictObject({ name: z.string().max(128) }),
  labels: z.strictObject({ labels }),
  envelope: z.strictObject({ envelope: base64 }),
  rollout: z.strictObject({
    envelope: base64,
    reverts: z.array(z.strictObject({ envelope: base64, agents: z.array(agentName) })).max(100),
    waves: z.array(amount).min(1).max(100),
    pauseMs: milliseconds,
    maxFailures: amount,
    minGoodPercent: z.number().min(0).max(100),
    timeoutMs: milliseconds,
  }),
  why: z.strictObject({ why: z.string().max(500).default('asked for') }),
}
