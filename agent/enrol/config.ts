import { z } from 'zod'
import { filePath, text } from '../../shared/config.ts'
import { parseInvitation } from '../../shared/fleet/invitation.ts'

/** How the agent becomes a member of a fleet by itself at its first start. */
export const enrolSchema = z
  .strictObject({
    /** The collector's address, `https://host:port`. */
    url: z.url({ protocol: /^https$/, error: 'expected an https:// address' }),
    /** What `headgate fleet invite` has printed; once it is used it may stay here. */
    token: text((given) =>
      parseInvitation(given)
        ? undefined
        : 'expected a token such as hg1.….…, as printed by `fleet invite`',
    ).optional(),
    /** File with the token in it, looked at until it is used. */
    tokenFile: filePath().optional(),
    /** A proxy on the way to the collector; `HTTPS_PROXY` where it is left out. */
    proxy: z
      .url({ protocol: /^https?$/, error: 'expected an http:// or https:// address' })
      .optional(),
  })
  .superRefine(({ token, tokenFile }, context) => {
    if ((token === undefined) === (tokenFile === undefined))
      context.addIssue({
        code: 'custom',
        path: ['token'],
        message: 'set either token or tokenFile',
      })
  })
  .optional()
export type EnrolConfig = NonNullable<z.output<typeof enrolSchema>>
