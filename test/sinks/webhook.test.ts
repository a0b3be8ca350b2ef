import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { Webhook } from 'standardwebhooks'
import { SinkFailure } from '../../collector/sinks/sink.ts'
import { webhook } from '../../collector/sinks/webhook.ts'
import { HttpReceiver, type Received } from '../support/http-receiver.ts'
import { alertRecords, Outlet, sliceOf } from '../support/sinks.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const secret = `whsec_${Buffer.alloc(24, 7).toString('base64')}`
const newSecret = `whsec_${Buffer.alloc(32, 8).toString('base64')}`

async function start(t: TestContext, config: object = {}) {
  const receiver = await HttpReceiver.start(t)
  const secretFile = join(await temporaryDirectory(t), 'secret')
  await writeFile(secretFile, `${secret}\n`)
  const url = `${receiver.url}/hooks?team=ops`
  const outlet = await Outlet.make(t, webhook, { url, secretFile, ...config }, { stream: 'alerts' })
  return { receiver, outlet, secretFile }
}

/** Numbers of the alerts in a request, whose signature is checked. */
function numbersIn({ body, headers }: Received, key = secret): number[] {
  const message = new Webhook(key).verify(body, headers as Record<string, string>) as {
    type: string
    data: { records: { content: { number: number } }[] }
  }
  assert.equal(message.type, 'headgate.alerts')
  return message.data.records.map(({ content }) => content.number)
}

const idsOf = ({ received }: HttpReceiver) => received.map(({ headers }) => headers['webhook-id'])

test('a receiver verifies what comes with the stock library', async (t) => {
  const { receiver, outlet } = await start(t)
  assert.equal(await outlet.write(sliceOf(alertRecords(2))), 'durable')
  const [request] = receiver.received
  assert.deepEqual(numbersIn(request!), [0, 1])
  assert.equal(request!.url, '/hooks?team=ops')
  assert.throws(() => numbersIn({ ...request!, body: request!.body.replace('pump-1', 'pump-2') }))
})

test('while a secret is replaced both of them verify', async (t) => {
  const { receiver, outlet, secretFile } = await start(t)
  await outlet.write(sliceOf(alertRecords(1)))
  await writeFile(secretFile, `${newSecret}\n${secret}\n`)
  await outlet.write(sliceOf(alertRecords(1, 1)))
  for (const key of [secret, newSecret])
    assert.deepEqual(numbersIn(receiver.received[1]!, key), [1])
})

test('many records go out in requests of as many as are allowed', async (t) => {
  const { receiver, outlet } = await start(t, { maxRecords: 3 })
  await outlet.write(sliceOf(alertRecords(7)))
  assert.deepEqual(
    receiver.received.map((each) => numbersIn(each)),
    [[0, 1, 2], [3, 4, 5], [6]],
  )
  assert.equal(new Set(idsOf(receiver)).size, 3)
})

test('a repeat has the id of the first try, though more has come meanwhile', async (t) => {
  const { receiver, outlet } = await start(t)
  receiver.answer = () => undefined // It has it, and does not get to say so.
  await assert.rejects(outlet.write(sliceOf(alertRecords(3))), { code: 'SINK_UNREACHABLE' })
  receiver.answer = () => ({ status: 200 })
  await outlet.write(sliceOf(alertRecords(5)))
  assert.deepEqual(
    receiver.received.map((each) => numbersIn(each)),
    [
      [0, 1, 2],
      [0, 1, 2],
      [3, 4],
    ],
  )
  const [first, again, rest] = idsOf(receiver)
  assert.equal(again, first)
  assert.notEqual(rest, first)
})

test('a repeat has the id of the first try, though it comes in smaller pieces', async (t) => {
  const { receiver, outlet } = await start(t)
  receiver.answer = () => undefined
  await assert.rejects(outlet.write(sliceOf(alertRecords(4))))
  receiver.answer = () => ({ status: 200 })
  assert.equal(await outlet.write(sliceOf(alertRecords(3))), 'held')
  assert.equal(await outlet.write(sliceOf(alertRecords(2, 3))), 'durable')
  assert.deepEqual(
    receiver.received.map((each) => numbersIn(each)),
    [[0, 1, 2, 3], [0, 1, 2, 3], [4]],
  )
  const [first, again] = idsOf(receiver)
  assert.equal(again, first)
})

test('of several requests those that were received keep their ids as well', async (t) => {
  const { receiver, outlet } = await start(t, { maxRecords: 2 })
  receiver.answer = () => (receiver.received.length < 2 ? { status: 200 } : { status: 503 })
  await assert.rejects(outlet.write(sliceOf(alertRecords(4))), { code: 'SINK_BUSY' })
  receiver.answer = () => ({ status: 200 })
  await outlet.write(sliceOf(alertRecords(4)))
  const ids = idsOf(receiver)
  assert.deepEqual(ids.slice(2), ids.slice(0, 2))
})

test('a record that the receiver cannot take goes to the dead letter and the others arrive', async (t) => {
  const { receiver, outlet } = await start(t)
  const taken: number[] = []
  receiver.answer = (request) => {
    const numbers = numbersIn(request)
    if (numbers.includes(5)) return { status: 422, body: 'no such\n rule' }
    taken.push(...numbers)
    return { status: 202 }
  }
  assert.equal(await outlet.write(sliceOf(alertRecords(8))), 'durable')
  assert.deepEqual(outlet.refused, [{ offset: 5, reason: '422 no such rule' }])
  assert.deepEqual(taken, [0, 1, 2, 3, 4, 6, 7])
})

const refusals: [status: number, code: string, retryAfterMs: number][] = [
  [400, 'SINK_REFUSED', 0],
  [401, 'SINK_REFUSED', 0],
  [404, 'SINK_REFUSED', 0],
  [410, 'SINK_REFUSED', 3_600_000],
  [429, 'SINK_BUSY', 7_000],
  [500, 'SINK_UNREACHABLE', 0],
  [503, 'SINK_BUSY', 7_000],
]
for (const [status, code, retryAfterMs] of refusals)
  test(`after ${status} the records wait, and none goes to the dead letter`, async (t) => {
    const { receiver, outlet } = await start(t)
    const headers = code === 'SINK_BUSY' ? { 'retry-after': '7' } : {}
    receiver.answer = () => ({ status, headers })
    await assert.rejects(outlet.write(sliceOf(alertRecords(2))), { code, retryAfterMs })
    assert.deepEqual(outlet.refused, [])
  })

test('a redirect is not followed', async (t) => {
  const { receiver, outlet } = await start(t)
  const elsewhere = await HttpReceiver.start(t)
  receiver.answer = () => ({ status: 307, headers: { location: elsewhere.url } })
  await assert.rejects(outlet.write(sliceOf(alertRecords(1))), { code: 'SINK_REFUSED' })
  assert.equal(elsewhere.received.length, 0)
})

test('a receiver that says nothing is given up after the time-out', async (t) => {
  const { receiver, outlet } = await start(t, { timeout: '100ms' })
  receiver.answer = () => 'never'
  await assert.rejects(outlet.write(sliceOf(alertRecords(1))), { code: 'SINK_UNREACHABLE' })
})

test('of an answer without end only the beginning is read', async (t) => {
  const { receiver, outlet } = await start(t)
  receiver.answer = () => ({ status: 400, body: 'x'.repeat(50_000_000) })
  await assert.rejects(outlet.write(sliceOf(alertRecords(1))), (error: SinkFailure) => {
    assert.ok(error instanceof SinkFailure)
    return error.message.length < 1_000
  })
})

test('a secret that is too short is named with its file', async (t) => {
  const { outlet, secretFile } = await start(t)
  await writeFile(secretFile, 'whsec_c2hvcnQ=')
  await assert.rejects(outlet.write(sliceOf(alertRecords(1))), (error: Error) =>
    error.message.includes(secretFile),
  )
})
