import { streams } from '../shared/reading.ts'
import { shapes } from './fanout/shape.ts'
import { fleetPaths, fleetSchemas } from './openapi/fleet.ts'
import {
  body,
  inPath,
  json,
  lines,
  list,
  object,
  offset,
  parameter,
  problem,
  ref,
  text,
  time,
  whoever,
} from './openapi/parts.ts'

/**
 * What a collector answers over HTTP, as OpenAPI 3.1, served at `/v1/openapi.json`. A test asks a running collector
 * for every path, parameter and status in it, and holds the answers to the schemas.
 */

const plain = (description: string) => ({
  description,
  content: { 'text/plain': { schema: text } },
})
/** For what asks the log, which a cluster between two leaders does not answer. */
const away = { 503: problem('the log cannot be read now') }

const stream = inPath('stream', { enum: streams })
const group = inPath('group', { type: 'string', pattern: '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$' })
const position = 'an offset, or a time in ISO 8601'
const chosen = [
  stream,
  parameter('from', `first ${position}; offsets of all partitions with commas between`, text),
  parameter('to', `${position} before which to stop`, text),
  parameter('partition', 'only of this partition', offset),
  parameter('device', 'exact name', text),
  parameter('metric', 'exact name', text),
  {
    name: 'Last-Event-ID',
    in: 'header',
    description: 'by partition the last offset seen',
    schema: text,
  },
]
const contents = {
  'application/x-ndjson': { schema: text },
  'text/csv': { schema: text },
  'application/cbor-seq': { schema: {} },
}
const session = { type: 'string', pattern: '^[0-9a-f]{32}$' } as const
const groupProblems = {
  ...whoever,
  404: problem('no such group'),
  503: problem('what is kept of it cannot be read or written now'),
}
const verb = (summary: string, asks: object, answers: object, more: object = {}) => ({
  post: {
    summary,
    parameters: [group, stream],
    requestBody: body(asks),
    responses: {
      200: json('done, and it survives a power cut', answers),
      400: problem('the body makes no sense'),
      413: problem('the body is too large'),
      ...whoever,
      503: groupProblems[503],
      ...more,
    },
  },
})
const sink = inPath('sink', { type: 'string', pattern: '^[A-Za-z0-9_-]+$' })
const noSink = { 404: problem('no such sink') }
const ofSink = (summary: string, asks: object = object({})) => ({
  post: {
    summary: `${summary}; for managers`,
    parameters: [sink],
    requestBody: body(asks),
    responses: {
      200: json('it is remembered', ref('Sink')),
      400: problem('the body makes no sense'),
      415: problem('no JSON'),
      ...noSink,
      ...whoever,
    },
  },
})
const noGroup = { 404: groupProblems[404] }
const notHeld = { 409: problem('the session does not hold what it names, or has ended') }

const range = { first: offset, end: offset }

export const openapi = {
  openapi: '3.1.0',
  info: {
    title: 'Headgate collector',
    version: '1',
    description:
      'The log of a collector, to be read and written. docs/COLLECTOR.md says what it means.',
  },
  security: [{}, { token: [] }, { certificate: [] }],
  paths: {
    '/v1/batches': {
      post: {
        summary: 'Takes a batch of an agent; docs/WIRE.md',
        requestBody: { required: true, content: { 'application/cbor': { schema: {} } } },
        responses: {
          200: json('durable, now or before', ref('Held')),
          400: problem('no batch'),
          409: json('a hole or a fork: nothing was taken', ref('Held')),
          413: problem('too large'),
          415: problem('another type or encoding'),
          429: problem('too much is in flight'),
          503: problem('the log cannot write'),
          ...whoever,
        },
      },
    },
    '/v1/log': {
      get: {
        summary: 'How the log is cut, and whether it can write',
        responses: {
          200: json(
            'the log',
            object({
              partitions: { type: 'integer', minimum: 1 },
              state: { enum: ['open', 'healing', 'closed'] },
            }),
          ),
          ...whoever,
        },
      },
    },
    '/v1/streams': {
      get: {
        summary: 'What each stream holds',
        responses: {
          200: json('by stream', { type: 'object', additionalProperties: ref('Stream') }),
          ...away,
          ...whoever,
        },
      },
    },
    '/v1/streams/{stream}/records': {
      get: {
        summary: 'Records up to the end as it is then',
        parameters: [...chosen, parameter('format', 'ndjson when left out', { enum: shapes })],
        responses: {
          200: {
            description: 'records, or batches as they came',
            content: { ...contents, 'application/vnd.apache.parquet': { schema: {} } },
          },
          400: problem('a question that cannot be answered'),
          429: problem('too many Parquet files are being made'),
          ...away,
          ...whoever,
        },
      },
    },
    '/v1/streams/{stream}/tail': {
      get: {
        summary: 'Records as they come',
        parameters: [
          ...chosen,
          parameter('format', 'server-sent events when left out', {
            enum: shapes.filter((shape) => shape !== 'parquet'),
          }),
        ],
        responses: {
          200: {
            description: 'without end',
            content: { 'text/event-stream': { schema: text }, ...contents },
          },
          400: problem('a question that cannot be answered'),
          ...away,
          ...whoever,
        },
      },
    },
    '/v1/completeness': {
      get: {
        summary: 'Whether a device’s readings of some time are whole',
        parameters: [
          parameter('device', 'exact name', text, { required: true }),
          parameter('from', 'time in ISO 8601', text, { required: true }),
          parameter('to', 'time in ISO 8601', text, { required: true }),
          parameter('agent', 'only as far as this agent knows the device', text),
        ],
        responses: {
          200: json('what can be said', ref('Completeness')),
          400: problem('a question that cannot be answered'),
          429: problem('too many questions wait'),
          ...away,
          ...whoever,
        },
      },
    },
    '/v1/groups': {
      get: {
        summary: 'Groups of readers',
        responses: {
          200: json(
            'all',
            object({ groups: list(object({ group: text, stream: { enum: streams } })) }),
          ),
          ...whoever,
          503: groupProblems[503],
        },
      },
    },
    '/v1/groups/{group}/{stream}': {
      get: {
        summary: 'Where a group is, and who reads',
        parameters: [group, stream],
        responses: { 200: json('the group', ref('Group')), ...groupProblems },
      },
      delete: {
        summary: 'Forgets a group; for managers',
        parameters: [group, stream],
        responses: { 200: json('it is forgotten', object({ removed: text })), ...groupProblems },
      },
    },
    '/v1/groups/{group}/{stream}/lease': verb(
      'Begins, or renews the leases',
      object(
        {
          consumer: { type: 'string', pattern: '^[A-Za-z0-9_.:@-]{1,64}$' },
          session,
          leaseMs: { type: 'integer', minimum: 1000, maximum: 3_600_000 },
          from: { enum: ['beginning', 'end'] },
        },
        ['session', 'leaseMs', 'from'],
      ),
      object({
        session,
        leaseMs: offset,
        partitions: list(object({ partition: offset, next: offset, ...range })),
      }),
      { ...notHeld, 429: problem('there are as many groups, or consumers, as there may be') },
    ),
    '/v1/groups/{group}/{stream}/commit': verb(
      'Moves cursors forward',
      object({ session, next: { type: 'object', additionalProperties: offset } }),
      object({ committed: { const: true } }),
      { ...noGroup, ...notHeld },
    ),
    '/v1/groups/{group}/{stream}/leave': verb(
      'Gives all back',
      object({ session }),
      object({ left: { const: true } }),
      noGroup,
    ),
    '/v1/groups/{group}/{stream}/seek': verb(
      'Moves a group that nobody reads from; for managers',
      object({ next: list(offset) }),
      object({ sought: { const: true } }),
      { ...noGroup, 409: problem('somebody reads from it') },
    ),
    '/v1/sinks': {
      get: {
        summary: 'How far each sink is, and what troubles it; for managers',
        responses: {
          200: json('all', object({ sinks: list(ref('Sink')) })),
          ...away,
          ...whoever,
        },
      },
    },
    '/v1/sinks/{sink}/pause': ofSink('Writes nothing until it is resumed'),
    '/v1/sinks/{sink}/resume': ofSink('Goes on where it was'),
    '/v1/sinks/{sink}/backfill': ofSink(
      'Writes a range again, up to where the sink is',
      object({ from: text, to: text }, ['from', 'to']),
    ),
    '/v1/sinks/{sink}/dead': {
      get: {
        summary: 'What the output would not take: when, why and the record; for managers',
        parameters: [sink],
        responses: {
          200: lines('a JSON document a line, oldest first'),
          ...noSink,
          ...whoever,
        },
      },
    },
    ...fleetPaths,
    '/v1/verify': {
      get: {
        summary: 'Checks every frame, batch and sequence',
        responses: {
          200: json('what was found', { type: 'object', required: ['problems'] }),
          429: problem('it is being verified already'),
          ...away,
          ...whoever,
        },
      },
    },
    '/v1/openapi.json': {
      get: {
        summary: 'This document',
        responses: { 200: json('OpenAPI 3.1', { type: 'object' }), ...whoever },
      },
    },
    '/healthz': { get: { summary: 'Alive', responses: { 200: plain('it is') } } },
    '/readyz': {
      get: {
        summary: 'Able to take batches',
        responses: { 200: plain('it is'), 503: plain('the log cannot write') },
      },
    },
    '/metrics': {
      get: { summary: 'For Prometheus', responses: { 200: plain('metrics'), ...away, ...whoever } },
    },
  },
  components: {
    securitySchemes: {
      token: { type: 'http', scheme: 'bearer' },
      certificate: { type: 'mutualTLS' },
    },
    schemas: {
      Problem: {
        type: 'object',
        properties: { code: text, message: text, lost: list(offset) },
        required: ['code', 'message'],
        additionalProperties: false,
      },
      ...fleetSchemas,
      Held: object(
        {
          code: { enum: ['accepted', 'duplicate', 'hole', 'fork'] },
          held: offset,
          chain: { type: 'string', pattern: '^[0-9a-f]{16}$' },
          incarnation: { type: 'string', pattern: '^[0-9a-f]{32}$' },
          lane: { enum: ['urgent', 'bulk', 'quarantine'] },
        },
        ['incarnation', 'lane'],
      ),
      Stream: object(
        {
          readings: offset,
          batches: offset,
          bytes: offset,
          first: offset,
          next: offset,
          from: time,
          to: time,
        },
        ['from', 'to'],
      ),
      Completeness: object(
        {
          device: text,
          from: time,
          to: time,
          state: { enum: ['complete', 'incomplete', 'not_yet', 'unknown'] },
          asOf: time,
          readings: offset,
          agents: list(text),
          missing: list(
            object(
              {
                agent: text,
                reason: text,
                count: offset,
                atLeast: { type: 'boolean' },
                metrics: list(text),
                from: time,
                to: time,
              },
              ['agent', 'count', 'from', 'to'],
            ),
          ),
          waiting: list(
            object(
              {
                agent: text,
                reason: { enum: ['offline', 'unsent', 'untold'] },
                heard: time,
                settled: time,
              },
              ['heard', 'settled'],
            ),
          ),
        },
        ['asOf'],
      ),
      Sink: object(
        {
          name: text,
          stream: { enum: streams },
          kind: text,
          phase: { enum: ['starting', 'running', 'failing', 'paused', 'elsewhere', 'stopped'] },
          at: text,
          positions: list(offset),
          behind: offset,
          written: offset,
          refused: offset,
          failures: offset,
          damaged: offset,
          problem: object({ at: time, message: text }),
          again: object({ from: text, to: text, left: offset }, ['from', 'to']),
        },
        ['at', 'problem', 'again'],
      ),
      Group: object({
        group: text,
        stream: { enum: streams },
        partitions: list(
          object({ partition: offset, next: offset, ...range, behind: offset, consumer: text }, [
            'consumer',
          ]),
        ),
        consumers: list(
          object({ consumer: text, partitions: list(offset), leftMs: { type: 'number' } }),
        ),
      }),
    },
  },
}
