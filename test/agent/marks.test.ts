import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Marks, type Message, type MessageGroup } from '../../agent/source/source.ts'
import { MemoryState } from '../support/source.ts'

/** A broker's connection, as far as marks see it: groups with numbers on them. */
class Deliveries {
  #ordinal = 0
  readonly #connection: number
  readonly #token: string

  constructor(connection: number, token = 'session-1') {
    this.#connection = connection
    this.#token = token
  }

  group(
    messages: Partial<Message>[],
    { proven = 0, atMs = 0 }: { proven?: number; atMs?: number } = {},
  ): MessageGroup {
    this.#ordinal += 1
    return {
      messages: messages.map((message) => ({
        topic: 'sensors/a/t',
        payload: Buffer.from(`${message.packetId}`),
        qos: 1,
        retained: false,
        duplicate: false,
        packetId: 0,
        ...message,
      })),
      arrival: { wallMs: atMs, monotonicMs: atMs },
      connection: this.#connection,
      ordinal: this.#ordinal,
      proven,
      session: { token: this.#token, broker: 'mqtt://b gw', subscribed: ['sensors/#'] },
    }
  }
}

const ids = (from: number, to: number, more: Partial<Message> = {}): Partial<Message>[] =>
  Array.from({ length: to - from + 1 }, (_, i) => ({ packetId: from + i, ...more }))

/** Sifts and commits; returns the packet ids of the repeats. */
function pass(marks: Marks, state: MemoryState, group: MessageGroup, readings = 1): number[] {
  const { fresh, repeats } = marks.sift(group)
  assert.equal(fresh.length + repeats.length, group.messages.length)
  state.apply(
    marks.commitChanges(
      group,
      fresh.map(() => readings),
    ),
  )
  return repeats.map(({ message }) => message.packetId)
}

const markKeys = (state: MemoryState) =>
  [...state.entries.keys()].filter((key) => key.startsWith('mark/'))
const again = { duplicate: true }

test('what was committed before a crash is known again, with the readings it gave', async () => {
  const state = new MemoryState()
  const before = await Marks.load(state)
  pass(before, state, new Deliveries(1).group([{ packetId: 1 }, { packetId: 2 }]), 7)
  const marks = await Marks.load(state)
  const { fresh, repeats } = marks.sift(new Deliveries(1).group(ids(1, 3, again)))
  assert.deepEqual(
    fresh.map(({ packetId }) => packetId),
    [3],
  )
  assert.deepEqual(
    repeats.map(({ message, readings }) => [message.packetId, readings]),
    [
      [1, 7],
      [2, 7],
    ],
  )
})

test('a repeat that is delivered a third time is still known, with its readings', async () => {
  const state = new MemoryState()
  pass(await Marks.load(state), state, new Deliveries(1).group(ids(1, 3)), 5)
  for (let life = 2; life < 6; life++) {
    const marks = await Marks.load(state)
    const group = new Deliveries(1).group(ids(1, 3, again))
    const { repeats } = marks.sift(group)
    assert.deepEqual(
      repeats.map(({ readings }) => readings),
      [5, 5, 5],
      `life ${life}`,
    )
    state.apply(marks.commitChanges(group, []))
  }
})

for (const [what, message] of [
  ['another packet id', { packetId: 9, payload: Buffer.from('1') }],
  ['another payload', { packetId: 1, payload: Buffer.from('other') }],
  ['another topic', { packetId: 1, topic: 'sensors/b/t' }],
] as const)
  test(`${what} is another message, DUP or not`, async () => {
    for (const duplicate of [true, false]) {
      const state = new MemoryState()
      pass(await Marks.load(state), state, new Deliveries(1).group([{ packetId: 1 }]))
      const marks = await Marks.load(state)
      assert.deepEqual(pass(marks, state, new Deliveries(1).group([{ ...message, duplicate }])), [])
    }
  })

test('another session brings nothing again', async () => {
  const state = new MemoryState()
  pass(await Marks.load(state), state, new Deliveries(1).group(ids(1, 3)))
  const marks = await Marks.load(state)
  assert.deepEqual(pass(marks, state, new Deliveries(1, 'session-2').group(ids(1, 3, again))), [])
  assert.equal(markKeys(state).length, 1, 'marks of the old session are deleted')
})

test('on the connection that it was acknowledged on, a packet id brings a new message', async () => {
  const state = new MemoryState()
  const marks = await Marks.load(state)
  const deliveries = new Deliveries(1)
  const payload = Buffer.from('21.5')
  pass(marks, state, deliveries.group([{ packetId: 1, payload }]))
  assert.deepEqual(pass(marks, state, deliveries.group([{ packetId: 1, payload }])), [])
  const copy = { packetId: 1, payload, duplicate: true }
  assert.deepEqual(pass(marks, state, deliveries.group([copy], { proven: 2 })), [])
})

test('a copy that comes once its message is acknowledged is a repeat, and owed no PUBACK', async () => {
  const state = new MemoryState()
  const marks = await Marks.load(state)
  const deliveries = new Deliveries(1)
  pass(marks, state, deliveries.group(ids(1, 3)), 7)
  const group = deliveries.group([...ids(2, 2, again), ...ids(4, 4)])
  const { repeats } = marks.sift(group)
  assert.deepEqual(
    repeats.map(({ message, readings }) => [message.packetId, readings]),
    [[2, 7]],
  )
  state.apply(marks.commitChanges(group, [1]))
  assert.deepEqual(
    group.messages.map(({ isAnswered }) => isAnswered),
    [true, undefined],
  )
  // It says nothing against the broker's packet ids: what comes again after a crash is still known.
  const after = await Marks.load(state)
  assert.deepEqual(pass(after, state, new Deliveries(1).group(ids(1, 4, again))), [1, 2, 3, 4])
})

for (const [what, message, first] of [
  ['other content', { payload: Buffer.from('other'), ...again }, {}],
  ['no DUP', {}, {}],
  ['a DUP that was there the first time', again, again],
] as const)
  test(`with ${what} it is no copy of what was acknowledged before`, async () => {
    const state = new MemoryState()
    const marks = await Marks.load(state)
    const deliveries = new Deliveries(1)
    pass(marks, state, deliveries.group(ids(1, 3, first)))
    const group = deliveries.group(ids(2, 2, message))
    assert.deepEqual(pass(marks, state, group), [])
    assert.equal(group.messages[0]!.isAnswered, undefined)
  })

test('once the broker has read the PUBACK, or used the id or a later one again, nothing is a copy', async () => {
  for (const [proven, between] of [
    [1, []],
    [0, ids(1, 1, { payload: Buffer.from('new') })],
    [0, ids(2, 2, { payload: Buffer.from('new') })],
  ] as const) {
    const state = new MemoryState()
    const marks = await Marks.load(state)
    const deliveries = new Deliveries(1)
    pass(marks, state, deliveries.group(ids(1, 1)))
    pass(marks, state, deliveries.group(ids(2, 2)))
    const last = deliveries.group([...between, ...ids(1, 1, again)], { proven })
    assert.deepEqual(pass(marks, state, last), [])
    assert.deepEqual(last.messages.filter(({ isAnswered }) => isAnswered).length, 0)
  }
})

test('only the first use of a packet id on a connection can be a repeat', async () => {
  const state = new MemoryState()
  pass(await Marks.load(state), state, new Deliveries(1).group(ids(1, 2)))
  const marks = await Marks.load(state)
  const deliveries = new Deliveries(1)
  assert.deepEqual(pass(marks, state, deliveries.group(ids(1, 1, again))), [1])
  assert.deepEqual(pass(marks, state, deliveries.group(ids(1, 1, again))), [])
  // Used for something else first: the mark of 2 has ended.
  assert.deepEqual(
    pass(marks, state, deliveries.group([{ packetId: 2, payload: Buffer.from('new') }])),
    [],
  )
  assert.deepEqual(pass(marks, state, deliveries.group(ids(2, 2, again))), [])
})

test('without DUP it is a repeat only from a broker that never sets it', async () => {
  const state = new MemoryState()
  pass(await Marks.load(state), state, new Deliveries(1).group(ids(1, 3)))
  const silent = await Marks.load(state)
  const second = new Deliveries(1)
  assert.deepEqual(pass(silent, state, second.group(ids(1, 1))), [1], 'aedes')
  assert.deepEqual(
    pass(silent, state, second.group(ids(2, 2, again))),
    [2],
    'now it is seen to set DUP',
  )
  assert.deepEqual(pass(silent, state, second.group(ids(3, 3))), [])
  const later = await Marks.load(state)
  assert.deepEqual(
    pass(later, state, new Deliveries(1).group(ids(1, 1))),
    [],
    'and that is remembered',
  )
})

test("a publisher's DUP that a broker hands on is not taken for the broker's", async () => {
  const state = new MemoryState()
  pass(
    await Marks.load(state),
    state,
    new Deliveries(1).group([{ packetId: 1, ...again }, { packetId: 2 }]),
  )
  const marks = await Marks.load(state)
  const group = new Deliveries(1).group([{ packetId: 1, ...again }, { packetId: 2 }])
  assert.deepEqual(pass(marks, state, group), [1, 2])
})

test('a mark ends once the broker has read the acknowledgement, and is deleted with a later commit', async () => {
  const state = new MemoryState()
  const marks = await Marks.load(state)
  const deliveries = new Deliveries(1)
  pass(marks, state, deliveries.group(ids(1, 10)))
  pass(marks, state, deliveries.group(ids(11, 20)))
  assert.equal(markKeys(state).length, 2)
  pass(marks, state, deliveries.group(ids(21, 30), { proven: 1 }))
  assert.equal(markKeys(state).length, 2)
  pass(marks, state, deliveries.group(ids(31, 40), { proven: 3 }))
  assert.equal(markKeys(state).length, 1)
  const reloaded = await Marks.load(state)
  const repeats = pass(reloaded, state, new Deliveries(1).group(ids(1, 40, again)))
  assert.deepEqual(
    repeats,
    ids(31, 40).map(({ packetId }) => packetId),
  )
})

test('earlier marks end when the broker is through with delivering again', async () => {
  const state = new MemoryState()
  pass(await Marks.load(state), state, new Deliveries(1).group(ids(1, 10)))
  const marks = await Marks.load(state)
  const deliveries = new Deliveries(1)
  assert.deepEqual(pass(marks, state, deliveries.group(ids(1, 4, again))), [1, 2, 3, 4])
  assert.deepEqual(pass(marks, state, deliveries.group(ids(5, 5, again))), [5], 'still under way')
  pass(marks, state, deliveries.group(ids(50, 50), { proven: 2 }))
  assert.deepEqual(pass(marks, state, deliveries.group(ids(6, 6, again), { proven: 2 })), [6])
  pass(marks, state, deliveries.group(ids(51, 51), { proven: 3 }))
  pass(marks, state, deliveries.group(ids(52, 52), { proven: 5 }))
  assert.deepEqual(pass(marks, state, deliveries.group(ids(7, 7, again))), [], 'over')
})

test('a broker without DUP may mix what comes again with what is new, for ten seconds', async () => {
  const state = new MemoryState()
  pass(await Marks.load(state), state, new Deliveries(1).group(ids(1, 10)))
  const marks = await Marks.load(state)
  const deliveries = new Deliveries(1)
  for (let group = 1; group <= 9; group++)
    pass(
      marks,
      state,
      deliveries.group(ids(100 + group, 100 + group), { proven: group - 1, atMs: group }),
    )
  assert.deepEqual(pass(marks, state, deliveries.group(ids(1, 1), { proven: 8, atMs: 9_000 })), [1])
  pass(marks, state, deliveries.group(ids(200, 200), { proven: 9, atMs: 18_000 }))
  assert.deepEqual(
    pass(marks, state, deliveries.group(ids(2, 2), { proven: 10, atMs: 18_900 })),
    [2],
  )
  pass(marks, state, deliveries.group(ids(201, 201), { proven: 11, atMs: 30_000 }))
  pass(marks, state, deliveries.group(ids(202, 202), { proven: 13, atMs: 30_001 }))
  assert.deepEqual(
    pass(marks, state, deliveries.group(ids(3, 3), { proven: 14, atMs: 30_002 })),
    [],
  )
})

test('a sensor that repeats its value is given the benefit of the doubt', async () => {
  const state = new MemoryState()
  const payload = Buffer.from('on')
  const on = (from: number, to: number) => ids(from, to, { payload })
  pass(await Marks.load(state), state, new Deliveries(1).group(on(1, 10)))
  const marks = await Marks.load(state)
  const deliveries = new Deliveries(1)
  assert.deepEqual(
    pass(marks, state, deliveries.group(on(4, 4))),
    [4],
    'at first it is one that comes again',
  )
  pass(marks, state, deliveries.group(ids(50, 50), { proven: 1 }))
  pass(marks, state, deliveries.group(ids(51, 51), { proven: 2 }))
  assert.deepEqual(
    pass(marks, state, deliveries.group(on(5, 5), { proven: 2 })),
    [],
    'then it may be new',
  )
})

test('marks that end while earlier ones are left do not bring outdated ones back to life', async () => {
  const state = new MemoryState()
  pass(await Marks.load(state), state, new Deliveries(1).group(ids(1, 10)))
  const marks = await Marks.load(state)
  const deliveries = new Deliveries(1)
  const renewed = { packetId: 2, payload: Buffer.from('new') }
  pass(marks, state, deliveries.group([renewed]))
  pass(marks, state, deliveries.group(ids(50, 50), { proven: 1 }))
  assert.equal(markKeys(state).length, 2, 'what is left of the earlier ones, and the last group')
  const reloaded = await Marks.load(state)
  assert.deepEqual(
    pass(reloaded, state, new Deliveries(1).group([...ids(2, 3, again), { ...renewed, ...again }])),
    [3],
  )
})

test('redelivery may take many connections', async () => {
  const state = new MemoryState()
  const marks = await Marks.load(state)
  pass(marks, state, new Deliveries(1).group(ids(1, 30)))
  for (let connection = 2; connection < 6; connection++) {
    const deliveries = new Deliveries(connection)
    assert.deepEqual(pass(marks, state, deliveries.group(ids(1, 15, again))).length, 15)
    assert.deepEqual(pass(marks, state, deliveries.group(ids(16, 30, again))).length, 15)
    assert.equal(marks.size, 30, 'and their number does not grow')
    assert.ok(markKeys(state).length <= 3)
  }
})

test('an outdated mark does not come back to life', async () => {
  const state = new MemoryState()
  pass(await Marks.load(state), state, new Deliveries(1).group(ids(1, 10)))
  const marks = await Marks.load(state)
  const deliveries = new Deliveries(1)
  pass(marks, state, deliveries.group(ids(1, 1, again))) // Redelivery is under way …
  pass(marks, state, deliveries.group([{ packetId: 2, payload: Buffer.from('new') }])) // … and 2 has moved on.
  pass(marks, state, deliveries.group(ids(3, 3, again), { proven: 2 }))
  const reloaded = await Marks.load(state)
  assert.deepEqual(pass(reloaded, state, new Deliveries(1).group(ids(2, 2, again))), [])
})

test('from a broker that uses packet ids again at once, everything is kept', async () => {
  const state = new MemoryState()
  const marks = await Marks.load(state)
  const deliveries = new Deliveries(1)
  const payload = Buffer.from('on')
  pass(marks, state, deliveries.group([{ packetId: 1, payload }]))
  pass(marks, state, deliveries.group([{ packetId: 1, payload }]))
  // After a crash nobody can tell whether this is the second message or a third one.
  const after = await Marks.load(state)
  assert.deepEqual(
    pass(after, state, new Deliveries(1).group([{ packetId: 1, payload, duplicate: true }])),
    [],
  )
})

test('a packet id that comes round again after its mark is deleted proves nothing against the broker', async () => {
  const state = new MemoryState()
  const marks = await Marks.load(state)
  const deliveries = new Deliveries(1)
  pass(marks, state, deliveries.group(ids(1, 5)))
  pass(marks, state, deliveries.group(ids(6, 9), { proven: 1 }))
  pass(marks, state, deliveries.group(ids(1, 5, { payload: Buffer.from('new') })))
  const after = await Marks.load(state)
  const repeats = pass(
    after,
    state,
    new Deliveries(1).group(ids(1, 5, { payload: Buffer.from('new'), ...again })),
  )
  assert.equal(repeats.length, 5)
})

test('marks stay bounded with a broker that never answers a PINGREQ', async () => {
  const state = new MemoryState()
  const marks = await Marks.load(state)
  const deliveries = new Deliveries(1)
  for (let group = 0; group < 40; group++) {
    const first = 1 + ((group * 6_000) % 60_000)
    pass(marks, state, deliveries.group(ids(first, first + 5_999)))
  }
  assert.ok(marks.size <= 72_000, `${marks.size} marks`)
})

test('QoS 0 leaves no marks', async () => {
  const state = new MemoryState()
  const marks = await Marks.load(state)
  pass(marks, state, new Deliveries(1).group([{ qos: 0 }, { qos: 0 }]))
  assert.deepEqual(markKeys(state), [])
})

test("a retained copy of a topic's last message is a repeat, across restarts", async () => {
  const state = new MemoryState()
  const marks = await Marks.load(state)
  const payload = Buffer.from('21.5')
  const copy = { qos: 0, payload, retained: true } as const
  assert.equal(pass(marks, state, new Deliveries(1).group([copy])).length, 0)
  assert.equal(pass(marks, state, new Deliveries(1).group([copy])).length, 1)
  pass(
    marks,
    state,
    new Deliveries(1).group([{ packetId: 1, payload: Buffer.from('22') }], { atMs: 5_000 }),
    3,
  )
  assert.equal(
    pass(marks, state, new Deliveries(1).group([copy])).length,
    0,
    'no longer the last one',
  )
  state.apply(marks.checkpoint())
  const reloaded = await Marks.load(state)
  const { repeats } = reloaded.sift(new Deliveries(1).group([copy]))
  assert.deepEqual(
    repeats.map(({ readings }) => readings),
    [1],
  )
})

test("topics' last messages are stored every ten seconds, and only what has changed", async () => {
  const state = new MemoryState()
  const marks = await Marks.load(state)
  const lastKeys = () => [...state.entries.keys()].filter((key) => key.startsWith('last/')).length
  pass(marks, state, new Deliveries(1).group([{ packetId: 1 }], { atMs: 0 }))
  pass(marks, state, new Deliveries(1).group([{ packetId: 2 }], { atMs: 9_000 }))
  assert.equal(lastKeys(), 0)
  pass(marks, state, new Deliveries(1).group([{ packetId: 3 }], { atMs: 10_000 }))
  assert.equal(lastKeys(), 1)
  assert.deepEqual(marks.checkpoint(), [])
})

test('damaged state is left out', async () => {
  const state = new MemoryState()
  pass(await Marks.load(state), state, new Deliveries(1).group(ids(1, 3)))
  for (const [key, value] of state.entries) {
    for (const damaged of [value.slice(0, -1), new Uint8Array(0), new Uint8Array(40).fill(255)]) {
      state.entries.set(key, damaged)
      const marks = await Marks.load(state)
      assert.deepEqual(
        pass(marks, new MemoryState(), new Deliveries(1, 'session-9').group(ids(1, 3, again))),
        [],
      )
    }
    state.entries.set(key, value)
  }
})
