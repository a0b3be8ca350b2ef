import type { IncomingMessage, ServerResponse } from 'node:http'
import { z } from 'zod'
import type { HttpAnswer } from '../../shared/ports.ts'
import { type Stream, streams } from '../../shared/reading.ts'
import type { Caller } from '../auth.ts'
import { readBody, send } from '../http.ts'
import { json } from '../ingest/ingest.ts'
import { consumerName } from './group.ts'
import { GroupProblem, type Groups, groupPattern } from './groups.ts'

const maxBodyBytes = 32 * 1024
const offset = z.int().min(0)
const session = z.string().regex(/^[0-9a-f]{32}$/, 'a session as `lease` gives it')

const bodies = {
  lease: z.strictObject({
    consumer: consumerName,
    /** As the last answer had it; none at first. */
    session: session.optional(),
    leaseMs: z.int().min(1_000).max(3_600_000).default(30_000),
    from: z.enum(['beginning', 'end']).default('beginning'),
  }),
  commit: z.strictObject({
    session,
    /** By partition: offset behind the last record that is done with. */
    next: z
      .record(z.string().regex(/^\d{1,3}$/, 'the number of a partition'), offset)
      .transform(
        (next) => new Map(Object.entries(next).map(([key, value]) => [Number(key), value])),
      ),
  }),
  leave: z.strictObject({ session }),
  seek: z.strictObject({ next: z.array(offset).min(1).max(256) }),
}
type Verb = keyof typeof bodies

/** Answers below `/v1/groups`. */
export class GroupsApi {
  readonly #groups: Groups

  constructor(groups: Groups) {
    this.#groups = groups
  }

  /** @returns false when it is nothing of ours */
  async answer(
    request: IncomingMessage,
    response: ServerResponse,
    url: URL,
    caller: Caller,
  ): Promise<boolean> {
    if (url.pathname !== '/v1/groups' && !url.pathname.startsWith('/v1/groups/')) return false
    const answer = await this.#route(request, url, caller).catch((error: unknown) => {
      if (!(error instanceof GroupProblem)) throw error
      const { status, code, message, more } = error
      return json(status, { code, message, ...more }, status === 503 ? { 'retry-after': '5' } : {})
    })
    if (answer) send(response, answer)
    return true
  }

  async #route(
    request: IncomingMessage,
    url: URL,
    caller: Caller,
  ): Promise<HttpAnswer | undefined> {
    const groups = this.#groups
    const method = request.method ?? ''
    if (url.pathname === '/v1/groups') {
      allow(method, ['GET', 'HEAD'])
      const all = await groups.list()
      const mine = all.filter(({ stream }) => caller.streams?.has(stream) ?? true)
      return json(200, { groups: mine })
    }
    const { group, stream, verb } = partsOf(url.pathname)
    if (verb === undefined) {
      allow(method, ['GET', 'HEAD', 'DELETE'])
      if (method !== 'DELETE') return json(200, await groups.describe(group, stream))
      await groups.remove(group, stream)
      return json(200, { removed: group })
    }
    allow(method, ['POST'])
    const body = await readBody(request, maxBodyBytes).catch(() => null)
    if (body === null) return undefined // The sender went away.
    if (!body) throw new GroupProblem(413, 'size', `over ${maxBodyBytes} bytes`)
    switch (verb) {
      case 'lease': {
        const { session, ...asked } = parse('lease', body)
        return json(200, await groups.lease(group, stream, { ...asked, session }))
      }
      case 'commit':
        await groups.commit(group, stream, parse('commit', body))
        return json(200, { committed: true })
      case 'leave':
        await groups.leave(group, stream, parse('leave', body).session)
        return json(200, { left: true })
      case 'seek':
        await groups.seek(group, stream, parse('seek', body).next)
        return json(200, { sought: true })
    }
  }
}

function partsOf(path: string): { group: string; stream: Stream; verb: Verb | undefined } {
  const [, group = '', name = '', verb] =
    /^\/v1\/groups\/([^/]+)\/([^/]+)(?:\/(lease|commit|leave|seek))?$/.exec(path) ?? []
  const stream = streams.find((each) => each === name)
  if (!stream || !groupPattern.test(group))
    throw new GroupProblem(
      404,
      'path',
      `groups are at /v1/groups/<group>/<stream>: a group has up to 64 letters, digits, . _ -; a stream is one of ${streams.join(', ')}`,
    )
  return { group, stream, verb: verb as Verb | undefined }
}

function allow(method: string, methods: string[]): void {
  if (!methods.includes(method)) throw new GroupProblem(405, 'method', `${methods.join(', ')} only`)
}

function parse<Name extends Verb>(verb: Name, body: Uint8Array): z.output<(typeof bodies)[Name]> {
  let document: unknown
  try {
    document = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body))
  } catch {
    throw new GroupProblem(400, 'body', 'the body is no JSON')
  }
  const { success, data, error } = bodies[verb].safeParse(document)
  if (success) return data as z.output<(typeof bodies)[Name]>
  const { path, message } = error.issues[0]!
  throw new GroupProblem(400, 'body', `${path.map(String).join('.') || 'the body'}: ${message}`)
}
