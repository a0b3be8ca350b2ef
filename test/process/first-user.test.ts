import assert from 'node:assert/strict'
import { chmod, mkdir, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { cleanUp } from '../support/clean-up.ts'
import { assertDelivered } from '../support/counting.ts'
import { keepsQueue, Mosquitto } from '../support/mosquitto.ts'
import { needs } from '../support/needs.ts'
import { Cloud, Gateway } from '../support/plant.ts'
import { type Ended, Headgate, type HeadgateOptions } from '../support/process.ts'
import { Sensor } from '../support/sensor.ts'
import { temporaryDirectory } from '../support/temporary.ts'

// What can go wrong on the first day: one line says what and what to do, the exit code tells a wrong call
// (2) from a failure (1), and what the world may heal is waited for.

for (const [what, args, code, words] of [
  ['an unknown command', ['frobnicate'], 2, /unknown command 'frobnicate'/],
  ['an unknown option', ['log', 'ls', '--frm', '1'], 2, /unknown option '--frm'/],
  ['a missing option', ['agent', 'run'], 2, /--config/],
  ['a missing trace', ['sim', '--trace', '/none/x.csv'], 2, /x\.csv: no such file: check --trace/],
  [
    'a missing trace of `up`',
    ['up', '--trace', '/none/x.csv'],
    2,
    /x\.csv: no such file: check --trace/,
  ],
  ['a wrong number', ['sim', '--devices', 'many'], 2, /--devices .*"many"/],
  [
    'a missing configuration',
    ['agent', 'run', '--config', '/none/a.yaml'],
    1,
    /a\.yaml: no such file: check --config/,
  ],
  [
    'an agent that does not run',
    ['agent', 'status', '--data', '/none'],
    1,
    /no agent runs on \/none: start it/,
  ],
  ['a log that is none', ['log', 'ls', '--data', '/none'], 1, /\/none: no log here: --data takes/],
  [
    'a collector that is none',
    ['log', 'ls', '--collector', 'http://127.0.0.1:9'],
    1,
    /is it running\?/,
  ],
  [
    'no broker for the simulator',
    ['sim', '--broker', 'mqtt://127.0.0.1:9', '--give-up', '100ms'],
    1,
    /nothing listens there.*headgate broker/,
  ],
] as const)
  test(`${what} is said in one line, exit code ${code}`, async (t) => {
    assertSaid(await Headgate.run(t, args), code, words)
  })

test('every problem of a configuration is said at once, each with its path', async (t) => {
  const directory = await temporaryDirectory(t)
  const file = join(directory, 'agent.yaml')
  await writeFile(
    file,
    'agent: "gw 1"\ndata: ./d\nsource: { url: "http://x", colour: red }\n' +
      'decode: [{ topic: "a/{b", format: json }]\nuplink: { url: "http://127.0.0.1:1", timeout: 1 fortnight }\n',
  )
  for (const verb of ['check', 'run']) {
    const { code, stderr, stdout } = await Headgate.run(t, ['agent', verb, '--config', file])
    assert.equal(code, 1)
    assert.equal(stdout, '')
    for (const path of ['agent', 'source.url', 'source.colour', 'decode.0.topic', 'uplink.timeout'])
      assert.match(stderr, new RegExp(`^  ${path.replaceAll('.', '\\.')}: .+`, 'm'))
    assert.doesNotMatch(stderr, /^\s+at /m)
  }
  const collector = join(directory, 'collector.yaml')
  await writeFile(collector, 'data: ./c\nhttp: { host: 0.0.0.0, prot: 1 }\nauth: { mode: open }\n')
  const { code, stderr } = await Headgate.run(t, ['collector', 'run', '--config', collector])
  assert.equal(code, 1)
  assert.match(stderr, /http\.prot: /)
  assert.match(stderr, /auth\.mode: open is refused on 0\.0\.0\.0/)
})

test('a port that is taken is named, with what to do', async (t) => {
  const taken = createServer()
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve))
  cleanUp(t, () => taken.close())
  const { port } = taken.address() as { port: number }
  const directory = await temporaryDirectory(t)
  const cloud = await Cloud.make(t, { directory: `${directory}/c`, more: { http: { port } } })
  const gateway = await Gateway.make(t, {
    directory: `${directory}/a`,
    broker: 'mqtt://127.0.0.1:9',
    collector: cloud.url,
    more: { metrics: { port } },
  })
  const [collector, agent, broker] = await Promise.all([
    outcome(cloud.launch()),
    outcome(gateway.launch()),
    Headgate.run(t, ['broker', '--port', String(port)]),
  ])
  assertSaid(
    collector,
    1,
    new RegExp(`port ${port} is taken: stop what uses it, or set http\\.port`),
  )
  assertSaid(agent, 1, new RegExp(`port ${port} is taken: .*metrics\\.port`))
  assertSaid(broker, 1, new RegExp(`port ${port} on 127\\.0\\.0\\.1 is taken: give another`))
})

test('a folder that may not be read or written is named, with what to do', async (t) => {
  const as = asNobody(t)
  if (!as) return
  const directory = await temporaryDirectory(t)
  await chmod(directory, 0o755)
  const make = async (name: string, prepare: (data: string) => Promise<void>) => {
    const cloud = await Cloud.make(t, { directory: `${directory}/${name}-c` })
    const gateway = await Gateway.make(t, {
      directory: `${directory}/${name}-a`,
      broker: 'mqtt://127.0.0.1:9',
      collector: cloud.url,
    })
    await Promise.all([cloud.data, gateway.data].map(prepare))
    return Promise.all([outcome(cloud.launch(as)), outcome(gateway.launch(as))])
  }
  for (const ended of await make('missing', async () => {}))
    assertSaid(ended, 1, /data: .*(permission|EACCES).*: (make|check)/)
  for (const ended of await make('foreign', async (data) => void (await mkdir(data))))
    assertSaid(ended, 1, /data.*: (no permission|cannot make).*(owner|writable|who may write)/)
  for (const ended of await make(
    'closed',
    async (data) => void (await mkdir(data, { mode: 0o700 })),
  ))
    assertSaid(ended, 1, /data.*: (no permission|cannot make).*(owner|writable|who may write)/)
  for (const ended of await make('file', (data) => writeFile(data, '')))
    assertSaid(ended, 1, /data: .*(a file is in the way|EEXIST|ENOTDIR)/)
})

test('an outbox and a log of another user are named, with what to do', async (t) => {
  const as = asNobody(t)
  if (!as) return
  const directory = await temporaryDirectory(t)
  await chmod(directory, 0o755)
  const cloud = await Cloud.make(t, { directory: `${directory}/c` })
  const gateway = await Gateway.make(t, {
    directory: `${directory}/a`,
    broker: 'mqtt://127.0.0.1:9',
    collector: cloud.url,
  })
  await Promise.all([cloud.start(), gateway.start()])
  await Promise.all([cloud.stop(), gateway.stop()])
  await Promise.all([cloud.data, gateway.data].map((data) => chmod(data, 0o777)))
  const ended = await Promise.all([outcome(cloud.launch(as)), outcome(gateway.launch(as))])
  for (const each of ended)
    assertSaid(each, 1, /no permission.*: (change its owner|make it writable)/)
})

test('a second agent and a second collector keep off the folder of the first', async (t) => {
  const directory = await temporaryDirectory(t)
  const cloud = await Cloud.make(t, { directory: `${directory}/c`, more: { http: { port: 0 } } })
  const gateway = await Gateway.make(t, {
    directory: `${directory}/a`,
    broker: 'mqtt://127.0.0.1:9',
    collector: 'http://127.0.0.1:9',
  })
  const [collector, agent] = await Promise.all([cloud.start(), gateway.start()])
  const [second, other] = await Promise.all([outcome(cloud.launch()), outcome(gateway.launch())])
  assertSaid(second, 1, /another collector uses it: stop that one, or set data/)
  assertSaid(other, 1, /another running agent holds it: stop that one, or give this one its own/)
  assert.ok(collector.isRunning && agent.isRunning)
  assert.ok(await gateway.status(), 'the first can still be asked')
})

test('a wrong password is said by the simulator, which ends, and by the agent, which goes on', async (t) => {
  const broker = await Mosquitto.start(t, { users: { plant: 'right' } })
  if (!broker) return
  const directory = await temporaryDirectory(t)
  const passwordFile = join(directory, 'password')
  await writeFile(passwordFile, 'wrong\n')
  const login = ['--username', 'plant', '--password', 'wrong']
  const sim = await Headgate.run(t, ['sim', '--broker', broker.url, ...login])
  assertSaid(sim, 1, /refuses this user or password: check --username/)

  const gateway = await Gateway.make(t, {
    directory,
    broker: broker.url,
    collector: 'http://127.0.0.1:9',
    source: { username: 'plant', passwordFile },
  })
  const agent = await gateway.start()
  await agent.said(/check source\.username and source\.password/)
  assert.equal(warnings(agent, /check source\.password|check source\.username/), 1)
  await writeFile(passwordFile, 'right\n')
  await gateway.subscribed()
})

test('an agent without broker and collector says so once each, goes on, and heals', async (t) => {
  const broker = await Mosquitto.start(t, { lines: keepsQueue })
  if (!broker) return
  await broker.kill()
  const directory = await temporaryDirectory(t)
  const cloud = await Cloud.make(t, { directory: `${directory}/c` })
  const gateway = await Gateway.make(t, {
    directory: `${directory}/a`,
    broker: broker.url,
    collector: cloud.url,
  })
  const agent = await gateway.start()
  await agent.said(/nothing listens on 127\.0\.0\.1:\d+: is the broker running\? check source\.url/)
  await gateway.until(({ source }) => source.lastError !== undefined, 'another try')
  assert.equal(warnings(agent, /is the broker running/), 1)

  await broker.up()
  await gateway.subscribed()
  const sensor = new Sensor(broker.url)
  await sensor.publish(1_000)
  await agent.said(/is the collector running, is uplink\.url right\?/)
  const { uplink } = await gateway.until(({ uplink }) => uplink.retries > 5, 'more tries')
  // The first, and every tenth: a busy machine may have gone on trying before it was asked.
  const said = warnings(agent, /is the collector running/)
  assert.ok(said <= 1 + Math.ceil(uplink.retries / 10), `${said} times in ${uplink.retries} tries`)

  await cloud.start()
  await assertDelivered({ gateway, cloud, sensor })
})

test('a collector whose name nobody knows, or that is something else, is said, and the agent goes on', async (t) => {
  const broker = await Mosquitto.start(t)
  if (!broker) return
  const directory = await temporaryDirectory(t)
  const cloud = await Cloud.make(t, { directory: `${directory}/c` })
  await cloud.start()
  for (const [name, collector, words] of [
    [
      'unknown',
      'http://collector.invalid:7070',
      /the name does not resolve: check uplink\.url and DNS/,
    ],
    [
      'wrong-path',
      `${cloud.url}/elsewhere`,
      /no collector answers at this address: check uplink\.url/,
    ],
    ['broker', `http://127.0.0.1:${broker.port}`, /127\.0\.0\.1:\d+/],
  ] as const) {
    const gateway = await Gateway.make(t, {
      directory: `${directory}/${name}`,
      name,
      broker: broker.url,
      collector,
    })
    const agent = await gateway.start()
    await gateway.subscribed()
    const sensor = new Sensor(broker.url)
    await sensor.publish(10)
    await agent.said(words)
    const { ledger } = await gateway.until(
      ({ ledger }) => ledger.received === 10,
      'it takes readings',
    )
    assert.equal(ledger.buffered, 10)
    assert.equal((await gateway.stop()).code, 0)
  }
})

/** What a process has said by its end. */
async function outcome(process: Headgate): Promise<Outcome> {
  const ended = await process.ended()
  return { ...ended, stderr: process.stderr }
}

type Outcome = Ended & { stderr: string }

function assertSaid({ code, stderr }: Outcome, expected: number, words: RegExp): void {
  const lines = stderr.split('\n').filter((line) => line.startsWith('headgate: '))
  assert.equal(lines.length, 1, `not one line: ${stderr}`)
  assert.match(lines[0]!, words)
  assert.doesNotMatch(stderr, /^\s+at /m, 'a stack trace helps no user')
  assert.equal(code, expected, stderr)
}

/** Lines of a process's log, of level warn or above, that match. */
function warnings({ stderr }: Headgate, pattern: RegExp): number {
  const lines = stderr.split('\n').filter((line) => line.startsWith('{'))
  return lines.filter((line) => JSON.parse(line).level >= 40 && pattern.test(line)).length
}

/** Runs a command as a user who owns nothing here. */
function asNobody(t: TestContext): HeadgateOptions | undefined {
  if (process.getuid?.() !== 0) {
    t.skip('needs root, to become another user')
    return undefined
  }
  const setpriv = needs(t, 'setpriv')
  if (!setpriv) return undefined
  return { through: [setpriv, '--reuid=65534', '--regid=65534', '--clear-groups'] }
}
