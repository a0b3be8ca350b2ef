import { z } from 'zod'
import { reportedSchema, resultSchema, statusSchema } from '../../shared/fleet/reports.ts'
import { bodies } from '../fleet/bodies.ts'
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
} from './parts.ts'

/** The fleet's routes, for gateways and managers; what goes over MQTT is in docs/FLEET-WIRE.md. */

const agent = inPath('agent', text)
const id = inPath('id', text)
const labels = { type: 'object', additionalProperties: text }
const unknown = (what: string) => ({ 404: problem(`no such ${what}`) })
const signed = { 400: problem('not signed as it must be, or no longer valid') }
const used = { 409: problem('the version is used, or who it is for was revoked') }

/** What a route takes, and what it says to a body that makes no sense. */
function asks(schema: keyof typeof bodies) {
  return {
    requestBody: body(schemaOf(bodies[schema])),
    problems: { 400: problem('the body makes no sense'), 413: problem('the body is too large') },
  }
}

function schemaOf(schema: z.ZodType): object {
  const { $schema, ...rest } = z.toJSONSchema(schema, { io: 'input' })
  return rest
}

interface Described {
  parameters?: object[]
  /** What it is sent. */
  takes?: keyof typeof bodies
  answers: object
}

/** A route of managers. */
function managed(summary: string, { parameters, takes, answers }: Described) {
  const { requestBody, problems = {} } = takes ? asks(takes) : {}
  return {
    summary: `${summary}; for managers`,
    ...(parameters && { parameters }),
    ...(requestBody && { requestBody }),
    responses: { ...problems, ...answers, ...whoever },
  }
}

const steered = (summary: string) => ({
  post: managed(summary, {
    parameters: [id],
    takes: 'why',
    answers: {
      200: json('it is so', ref('Rollout')),
      ...unknown('rollout'),
      409: problem('it is in another phase'),
    },
  }),
})

export const fleetPaths = {
  '/v1/fleet/ca': {
    get: {
      summary: 'The certificate of the fleet’s authority; for anybody',
      responses: { 200: json('PEM', object({ ca: text })) },
    },
  },
  '/v1/fleet/enrol': {
    post: {
      summary: 'Makes a gateway a member, by an invitation’s token and a certificate request',
      requestBody: asks('enrol').requestBody,
      responses: {
        200: json('it is one', ref('Papers')),
        403: problem('the token is unknown, was used or has expired'),
        ...asks('enrol').problems,
      },
    },
  },
  '/v1/fleet/renew': {
    post: {
      summary: 'A certificate that ends later, for whoever shows one, also an expired one',
      requestBody: asks('renew').requestBody,
      responses: {
        200: json('the certificate', ref('Papers')),
        ...asks('renew').problems,
        401: problem('no certificate of this fleet'),
        403: problem('it was revoked, or the request is for another key'),
        429: problem('the certificate is still new'),
      },
    },
  },
  '/v1/fleet/self': {
    get: {
      summary: 'What the fleet says of the gateway that asks',
      responses: {
        200: json('without a certificate', ref('Papers')),
        401: problem('nobody that is known here'),
        ...unknown('gateway'),
      },
    },
  },
  '/v1/fleet/invitations': {
    post: managed('Lets gateways enrol; tokens are made by who invites, and only hashes sent', {
      takes: 'invite',
      answers: { 200: json('how many, until when', object({ invited: offset, expiresAt: time })) },
    }),
  },
  '/v1/fleet/agents': {
    get: managed('Who belongs', {
      parameters: [parameter('group', 'only its members: a name, or `label=value,…`', text)],
      answers: { 200: json('by name', object({ agents: list(ref('Member')) })) },
    }),
  },
  '/v1/fleet/agents/{agent}': {
    get: managed('One of them, with its history', {
      parameters: [agent],
      answers: { 200: json('it', ref('Member')), ...unknown('agent') },
    }),
  },
  '/v1/fleet/agents/{agent}/labels': {
    put: managed('Gives an agent these labels, which decide on its groups', {
      parameters: [agent],
      takes: 'labels',
      answers: { 200: json('the agent', ref('Member')), ...unknown('agent') },
    }),
  },
  '/v1/fleet/revoke': {
    post: managed('Throws an agent, a manager or a reader out, at once', {
      takes: 'revoke',
      answers: { 200: json('it is out', object({ revoked: text })), ...unknown('agent') },
    }),
  },
  '/v1/fleet/version': {
    get: managed('The newest version that there is', {
      answers: { 200: json('a number', object({ version: offset })) },
    }),
  },
  '/v1/fleet/versions/{version}': {
    get: managed('A signed configuration as it was pushed', {
      parameters: [inPath('version', offset)],
      answers: {
        200: json('base64', object({ version: offset, envelope: text })),
        ...unknown('version'),
      },
    }),
  },
  '/v1/fleet/desired': {
    post: managed('Sends a signed configuration to its agent or group', {
      takes: 'envelope',
      answers: {
        200: json('whom it is sent to', object({ version: offset, agents: list(text) })),
        ...signed,
        ...unknown('agent, or group'),
        ...used,
      },
    }),
  },
  '/v1/fleet/commands': {
    post: managed('Sends a signed command to an agent', {
      takes: 'envelope',
      answers: {
        200: json('it is sent', object({})),
        ...signed,
        ...unknown('agent'),
        409: problem('the agent is offline, or was revoked'),
        503: problem('the broker cannot be reached'),
      },
    }),
  },
  '/v1/fleet/results/{agent}/{id}': {
    get: managed('What a command has come to', {
      parameters: [agent, id],
      answers: { 200: json('the agent’s word', schemaOf(resultSchema)), ...unknown('result yet') },
    }),
  },
  '/v1/fleet/rollouts': {
    get: managed('All rollouts', {
      answers: { 200: json('oldest first', object({ rollouts: list(ref('Rollout')) })) },
    }),
    post: managed('Begins one', {
      takes: 'rollout',
      answers: {
        200: json('it has begun', ref('Rollout')),
        ...signed,
        ...unknown('group'),
        409: problem('a version is used, or another is under way in the group'),
      },
    }),
  },
  '/v1/fleet/rollouts/{id}': {
    get: managed('How far it is', {
      parameters: [id],
      answers: { 200: json('it', ref('Rollout')), ...unknown('rollout') },
    }),
  },
  '/v1/fleet/rollouts/{id}/halt': steered('Goes no further, and takes back what it has sent'),
  '/v1/fleet/rollouts/{id}/resume': steered('Goes on though it halted'),
  '/v1/fleet/events': {
    get: managed('What agents say, as it comes', { answers: { 200: lines('without end') } }),
  },
  '/v1/fleet/audit': {
    get: managed('The journal, each line with the hash of the one before', {
      answers: { 200: lines('oldest first') },
    }),
  },
  '/v1/fleet/crl': {
    get: managed('Certificates that no longer count, for brokers that read such a list', {
      answers: {
        200: { description: 'PEM', content: { 'application/x-pem-file': { schema: text } } },
      },
    }),
  },
}

export const fleetSchemas = {
  Papers: object(
    { agent: text, labels, ca: text, configKey: text, fleetBroker: text, certificate: text },
    ['certificate'],
  ),
  Member: object(
    {
      agent: text,
      labels,
      online: { type: 'boolean' },
      lastHeardAt: time,
      revokedAt: time,
      desired: offset,
      reported: schemaOf(reportedSchema),
      enrolledAt: time,
      certificateExpiresAt: time,
      status: schemaOf(statusSchema),
      history: list(object({ version: offset, state: text, at: time, why: text }, ['why'])),
    },
    [
      'lastHeardAt',
      'revokedAt',
      'desired',
      'reported',
      'enrolledAt',
      'certificateExpiresAt',
      'status',
      'history',
    ],
  ),
  Rollout: object(
    {
      id: text,
      group: text,
      version: offset,
      by: text,
      startedAt: time,
      phase: { enum: ['running', 'halted', 'finished'] },
      why: text,
      waves: list(object({ agents: offset, at: time })),
      wavesPlanned: offset,
      members: offset,
      sent: offset,
      good: offset,
      failed: offset,
      pending: offset,
      reverted: offset,
    },
    ['why'],
  ),
}
