import type { IncomingMessage } from 'node:http'
import type { HttpAnswer } from '../shared/ports.ts'
import type { Stream } from '../shared/reading.ts'
import { type Action, type Caller, forbid } from './auth.ts'
import { isSinksPath } from './sinks/sinks.ts'

/** What of the log a request is about: a stream, what everybody who reads may know, or all of it. */
type Subject = { stream: string } | 'list' | 'whole'

/** @returns an answer where the caller may not have what is asked for */
export function refuse(
  caller: Caller,
  { method }: IncomingMessage,
  { pathname }: URL,
): HttpAnswer | undefined {
  const refusal = forbid(caller, actionOf(method, pathname))
  const { streams } = caller
  if (refusal || !streams) return refusal
  const subject = subjectOf(pathname)
  if (subject === 'list' || (subject !== 'whole' && streams.has(subject.stream as Stream)))
    return undefined
  const what = subject === 'whole' ? 'this shows all streams' : `not ${subject.stream}`
  return forbid(caller, 'read', `${[...streams].join(', ')} only: ${what}`)
}

function actionOf(method: string | undefined, path: string): Action {
  if (path === '/v1/batches') return 'send'
  if (isSinksPath(path)) return 'manage'
  const isGroups = path.startsWith('/v1/groups/')
  // What would take from others what they have read, or not.
  return isGroups && (method === 'DELETE' || path.endsWith('/seek')) ? 'manage' : 'read'
}

function subjectOf(path: string): Subject {
  if (['/v1/log', '/v1/streams', '/v1/groups', '/v1/openapi.json'].includes(path)) return 'list'
  if (path === '/v1/completeness') return { stream: 'readings' }
  const [, ofStream, ofGroup] =
    /^\/v1\/(?:streams\/([^/]+)\/|groups\/[^/]+\/([^/]+))/.exec(path) ?? []
  const stream = ofStream ?? ofGroup
  return stream === undefined ? 'whole' : { stream }
}
