import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import mqttPacket, { type Packet } from 'mqtt-packet'
import { SourceFailure } from '../../agent/source/failure.ts'
import type { Message } from '../../agent/source/message.ts'
import { LargePublish, PublishReader } from '../../agent/source/publish.ts'
import { PacketScanner } from '../../agent/source/scanner.ts'
import { TopicTable } from '../../agent/source/topic-table.ts'
import { FakeBroker, publishPacket } from '../support/fake-broker.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { Seeded } from '../support/seeded.ts'
import { SourceLife } from '../support/source.ts'
import { until } from '../support/until.ts'

const limit = 1_000

/** What a scanner makes of the pieces: messages, and other packets as hex. */
function scan(pieces: Iterable<Uint8Array>, version: 4 | 5): (Message | string)[] {
  const found: (Message | string)[] = []
  const reader = new PublishReader(new TopicTable(), version === 5)
  const scanner = new PacketScanner(
    {
      publish: (flags, bytes, start, end) => found.push(reader.read(flags, bytes, start, end)),
      largePublish: (flags, length) =>
        new LargePublish({
          reader,
          flags,
          length,
          maxPayloadBytes: limit,
          done: (message) => found.push(message),
        }),
      control: (_type, packet) => found.push(Buffer.from(packet).toString('hex')),
    },
    limit,
  )
  for (const piece of pieces) scanner.push(piece)
  return found
}

function inHex(item: Message | string) {
  return typeof item === 'string'
    ? item
    : { ...item, payload: Buffer.from(item.payload).toString('hex') }
}

const properties = {
  payloadFormatIndicator: true,
  messageExpiryInterval: 60,
  contentType: 'application/json',
  responseTopic: 'answer/here',
  correlationData: Buffer.from([1, 2, 3]),
  subscriptionIdentifier: 300,
  userProperties: { site: 'north' },
}

function stream(version: 4 | 5): { bytes: Buffer; payloads: Buffer[] } {
  const payloads = [
    Buffer.from('21.5'),
    Buffer.alloc(0),
    Buffer.alloc(200, 'm'),
    Buffer.alloc(limit, 'w'),
    Buffer.alloc(3 * limit, 'large'),
    Buffer.from('last'),
  ]
  const packets: Packet[] = payloads.map((payload, i) => {
    const packet = publishPacket({
      id: i + 1,
      payload,
      topic: `sensors/größe/${i}`,
      qos: i === 1 ? 0 : 1,
      dup: i === 2,
    })
    return version === 5 && i % 2 === 0 ? ({ ...packet, properties } as Packet) : packet
  })
  packets.splice(2, 0, { cmd: 'pingresp' })
  packets.splice(4, 0, { cmd: 'suback', messageId: 7, granted: [1, 1, 1] })
  const bytes = Buffer.concat(
    packets.map((packet) => mqttPacket.generate(packet, { protocolVersion: version })),
  )
  return { bytes, payloads }
}

for (const version of [4, 5] as const) {
  test(`MQTT ${version}: packets come out whole and in order`, () => {
    const { bytes, payloads } = stream(version)
    const found = scan([bytes], version)
    assert.equal(found[2], 'd000')
    const messages = found.filter((item) => typeof item !== 'string')
    assert.deepEqual(
      messages.map(({ topic }) => topic),
      payloads.map((_, i) => `sensors/größe/${i}`),
    )
    assert.deepEqual(
      messages.map(({ packetId }) => packetId),
      [1, 0, 3, 4, 5, 6],
    )
    assert.deepEqual(
      messages.map(({ duplicate }) => duplicate),
      [false, false, true, false, false, false],
    )
    for (const [i, message] of messages.entries()) {
      const payload = payloads[i]!
      assert.ok(payload.subarray(0, 65_536).equals(message.payload), `payload ${i}`)
      const sha256 = new Uint8Array(createHash('sha256').update(payload).digest())
      assert.deepEqual(
        message.oversize,
        payload.length > limit ? { size: payload.length, sha256 } : undefined,
      )
    }
  })

  test(`MQTT ${version}: wherever the stream is cut, the same comes out`, () => {
    const { bytes } = stream(version)
    const plain = (pieces: Iterable<Uint8Array>) => scan(pieces, version).map(inHex)
    const whole = plain([bytes])
    for (let at = 1; at < bytes.length; at++)
      assert.deepEqual(plain([bytes.subarray(0, at), bytes.subarray(at)]), whole, `cut at ${at}`)
    const single = Array.from(bytes, (byte) => Uint8Array.of(byte))
    assert.deepEqual(plain(single), whole, 'byte by byte')
    const random = new Seeded(1)
    for (let round = 0; round < 200; round++) {
      const pieces: Uint8Array[] = []
      for (let at = 0; at < bytes.length; ) {
        const end = at + 1 + random.below(random.chance(0.5) ? 5 : 2_000)
        pieces.push(bytes.subarray(at, end))
        at = end
      }
      assert.deepEqual(plain(pieces), whole, `round ${round}`)
    }
  })
}

const hostile: [string, 4 | 5, number[]][] = [
  ['a length of five bytes', 4, [0x30, 0xff, 0xff, 0xff, 0xff, 0x01]],
  ['a PUBLISH without room for a topic length', 4, [0x30, 0x01, 0x00]],
  ['a topic longer than its packet', 4, [0x30, 0x04, 0x00, 0x09, 0x61, 0x62]],
  ['a packet id that is cut off', 4, [0x32, 0x04, 0x00, 0x01, 0x61, 0x00]],
  ['packet id 0', 4, [0x32, 0x05, 0x00, 0x01, 0x61, 0x00, 0x00]],
  ['QoS 3', 4, [0x36, 0x05, 0x00, 0x01, 0x61, 0x00, 0x01]],
  ['QoS 2', 4, [0x34, 0x05, 0x00, 0x01, 0x61, 0x00, 0x01]],
  ['properties longer than their packet', 5, [0x30, 0x04, 0x00, 0x01, 0x61, 0x09]],
  ['no room for the property length', 5, [0x30, 0x03, 0x00, 0x01, 0x61]],
  [
    'a property length of five bytes',
    5,
    [0x30, 0x09, 0x00, 0x01, 0x61, 0xff, 0xff, 0xff, 0xff, 0x01, 0x00],
  ],
  ['a topic alias', 5, [0x30, 0x07, 0x00, 0x01, 0x61, 0x03, 0x23, 0x00, 0x01]],
  ['an unknown property', 5, [0x30, 0x06, 0x00, 0x01, 0x61, 0x02, 0x7f, 0x00]],
  [
    'a property that ends beyond the others',
    5,
    [0x30, 0x08, 0x00, 0x01, 0x61, 0x04, 0x03, 0x00, 0x09, 0x61],
  ],
  [
    'a variable-length property without an end',
    5,
    [0x30, 0x06, 0x00, 0x01, 0x61, 0x02, 0x0b, 0xff],
  ],
  ['a control packet of a megabyte', 4, [0x90, 0x80, 0x80, 0x40]],
  [
    'a large PUBLISH that is shorter than its header',
    4,
    [0x30, 0xd0, 0x0f, 0xff, 0xff, ...Array<number>(2_000).fill(0x61)],
  ],
]
for (const [what, version, bytes] of hostile)
  test(`${what} is a protocol error, however it is cut`, () => {
    assert.throws(() => scan([Uint8Array.from(bytes)], version), SourceFailure)
    assert.throws(
      () =>
        scan(
          bytes.map((byte) => Uint8Array.of(byte)),
          version,
        ),
      SourceFailure,
    )
  })

test('a topic alias is refused for what it is', () => {
  const [, version, bytes] = hostile.find(([what]) => what === 'a topic alias')!
  assert.throws(
    () => scan([Uint8Array.from(bytes)], version),
    /a topic alias, though we allow none/,
  )
})

test('random bytes never do worse than end the connection', () => {
  const random = new Seeded(2)
  for (let round = 0; round < 20_000; round++) {
    const bytes = Uint8Array.from({ length: random.below(60) }, () => random.below(256))
    if (random.chance(0.8) && bytes.length > 1) {
      bytes[0] = 0x30 | random.below(16)
      bytes[1] = bytes.length - 2
    }
    try {
      for (const item of scan([bytes], random.chance(0.5) ? 5 : 4))
        if (typeof item !== 'string') assert.ok(item.payload.length <= bytes.length)
    } catch (error) {
      assert.ok(error instanceof SourceFailure, `${error}`)
    }
  }
})

for (const [what, bytes] of [
  ['a reserved packet type', [0x00, 0x00]],
  ['a second CONNACK', [0x20, 0x02, 0x00, 0x00]],
  ['a PINGREQ', [0xc0, 0x00]],
  ['a PUBREL', [0x62, 0x02, 0x00, 0x01]],
  ['a SUBACK that answers nothing', [0x90, 0x03, 0x00, 0x01, 0x00]],
  ['a SUBACK that is cut off', [0x90, 0x01, 0x00]],
  ['an AUTH', [0xf0, 0x00]],
] as const)
  test(`${what} ends the connection, and a new one is made`, async () => {
    const clock = new ManualClock()
    const dialer = new FakeBroker()
    const life = await SourceLife.begin({ dialer, clock })
    const connection = await dialer.accept()
    connection.send(Uint8Array.from(bytes))
    await until(() => connection.ended, 'the end of the connection')
    assert.equal(life.source.status().lastError!.code, 'SOURCE_PROTOCOL')
    await clock.advance(1_000)
    await dialer.accept({ count: 2 })
    assert.equal(life.source.status().phase, 'connected')
    life.crash()
  })

test('a topic table stays bounded under ever new topics', () => {
  const table = new TopicTable()
  for (let i = 0; i < 100_000; i++) {
    const bytes = Buffer.from(`sensors/${i}`)
    assert.equal(table.find(bytes, 0, bytes.length, i).topic, `sensors/${i}`)
  }
  assert.ok([...table.list()].length <= 20_000)
})
