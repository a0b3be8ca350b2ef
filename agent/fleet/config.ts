import { z } from 'zod'
import { duration, size, text } from '../../shared/config.ts'
import { isLabelName } from '../../shared/fleet/groups.ts'

/** How an agent keeps in touch with its fleet. Who it is stands in `<data>/identity/`. */
export const fleetSchema = z
  .strictObject({
    /** Fleet broker, `mqtts://host:port` or `wss://host/path`; the one named at enrolment where it is left out. */
    url: text(urlProblem).optional(),
    /** A proxy on the way to a `wss://` broker, `http://[user:password@]host:port`. */
    proxy: z
      .url({ protocol: /^https?$/, error: 'expected an http:// or https:// address' })
      .optional(),
    /** How long a new configuration is watched before it counts as good. */
    probation: duration({ min: '5s', max: '1d' }).prefault('2m'),
    /** Resident memory of the process above which a new configuration is taken back. */
    maxMemory: size({ min: '1MB', max: '1TB' }).prefault('1GiB'),
    /** The agent tells how it is this often. */
    statusEvery: duration({ min: '1s', max: '1d' }).prefault('1m'),
    keepalive: duration({ min: '1s', max: '18h' }).prefault('60s'),
    retry: z
      .strictObject({
        base: duration({ min: '10ms', max: '10m' }).prefault('20s'),
        max: duration({ min: '10ms', max: '1h' }).prefault('60s'),
      })
      .prefault({}),
    /** Labels beside those given at enrolment; these win. */
    labels: z
      .record(
        text((name) =>
          isLabelName(name) ? undefined : 'expected a letter or _, then A-Z a-z 0-9 _ . -',
        ),
        z.union([z.string(), z.number(), z.boolean()]).transform(String),
      )
      .default({}),
  })
  .prefault({})
export type FleetConfig = z.output<typeof fleetSchema>

function urlProblem(given: string): string | undefined {
  let url: URL
  try {
    url = new URL(given)
  } catch {
    return 'expected a URL such as mqtts://fleet.example:8883 or wss://collector.example/mqtt'
  }
  if (!['mqtt:', 'mqtts:', 'ws:', 'wss:'].includes(url.protocol))
    return `expected mqtts:// or wss://, not ${url.protocol}//`
  if (url.username || url.password) return 'the gateway shows its certificate: no user, no password'
  return url.hostname === '' ? 'names no host' : undefined
}
