import assert from 'node:assert/strict'
import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { stringify } from 'yaml'
import { cleanUp } from '../support/clean-up.ts'
import { freePort } from '../support/free-port.ts'
import { keepsQueue, Mosquitto } from '../support/mosquitto.ts'
import { poll } from '../support/poll.ts'
import { Headgate } from '../support/process.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { Flow } from './flow.ts'
import { tally } from './tally.ts'

const perSecond = 2_000
/** All of it is to take less than eight minutes, also on two cores that others use. */
const timeout = 450_000
const agents = ['gw-001', 'gw-002', 'gw-003'] as const
/** A label with which the same document does two of them good, and the third one harm. */
const paths = { 'gw-001': 'sensors', 'gw-002': 'sensors', 'gw-003': 'elsewhere' } as const

interface Status {
  ledger: { received: number; deduplicated: number }
  lanes: Record<string, { sequences: number }>
}

test('a fleet from the first command to the last, under 2,000 readings a second', {
  timeout,
}, async (t) => {
  const mosquitto = await Mosquitto.start(t, { lines: keepsQueue })
  if (!mosquitto) return
  const folder = await temporaryDirectory(t)
  const [https, fleetPort] = [await freePort(), await freePort()]
  const url = `https://localhost:${https}`
  const at = (name: string) => join(folder, name)
  const fleetOption = ['--fleet', at('fleet')]

  /** Types a command, and expects it to end with `code`. */
  const type = async (args: string[], code = 0) => {
    const ended = await Headgate.run(t, args)
    assert.equal(ended.code, code, `headgate ${args.join(' ')}: ${ended.stdout}${ended.stderr}`)
    return ended.stdout + ended.stderr
  }
  const fleet = (command: string, ...args: string[]) =>
    type(['fleet', command, ...fleetOption, ...args])
  const failing = (command: string, ...args: string[]) =>
    type(['fleet', command, ...fleetOption, ...args], 1)
  const show = async (agent: string) => JSON.parse(await fleet('show', agent, '--json'))

  const label = (name: string) => `\${label.${name}}`
  const shared = (changes: object = {}) => ({
    source: { url: mosquitto.url, topics: [`${label('site')}/sensors/#`] },
    decode: [{ topic: `${label('site')}/sensors/{device}/{metric}`, format: 'json' }],
    outbox: { tail: { bytes: '64MiB', age: '1h' } },
    uplink: { url, retry: { base: '200ms', max: '2s' }, batch: { maxAge: '500ms' } },
    ...changes,
  })
  const write = (name: string, content: object) => writeFile(at(name), stringify(content))

  let collector: Headgate
  await t.test('init makes a fleet, and the collector starts with it', async () => {
    await type(['fleet', 'init', '--dir', at('fleet'), '--url', url, '--manager', 'alice'])
    await write('collector.yaml', {
      data: './collector',
      http: { host: '0.0.0.0', port: https },
      fleet: { folder: './fleet', broker: { port: fleetPort } },
    })
    collector = Headgate.start(t, ['collector', 'run', '--config', at('collector.yaml')])
    await collector.said(/listening/)
  })

  const running = new Map<string, Headgate>()
  const tokens = new Map<string, string>()
  await t.test(
    'three gateways are invited and enrol, one by one and by their own files',
    async () => {
      await writeFile(
        at('list.csv'),
        `agent,group,site,path\n${agents.map((agent) => `${agent},boilers,${agent},${paths[agent]}\n`).join('')}`,
      )
      const invited = await fleet('invite', '--from', at('list.csv'), '--ttl', '1h')
      for (const line of invited.trim().split('\n').slice(1)) {
        const [agent, token] = line.split(',')
        tokens.set(agent!, token!)
      }
      for (const agent of agents) {
        const token = tokens.get(agent)!
        await write(`${agent}.yaml`, {
          agent,
          data: `./${agent}`,
          ...shared({
            source: { url: mosquitto.url },
            decode: [{ topic: `${agent}/sensors/{device}/{metric}`, format: 'json' }],
          }),
          fleet: { probation: '10s', statusEvery: '1s', retry: { base: '200ms', max: '1s' } },
          ...(agent === 'gw-003' && { enrol: { url, token } }),
        })
        if (agent !== 'gw-003')
          await type([
            'agent',
            agent === 'gw-001' ? 'enrol' : 'enroll',
            '--url',
            url,
            '--token',
            token,
            '--config',
            at(`${agent}.yaml`),
          ])
        running.set(agent, Headgate.start(t, ['agent', 'run', '--config', at(`${agent}.yaml`)]))
      }
      await poll(
        async () => (await fleet('ls')).match(/online/g)?.length === agents.length,
        'all are online',
      )
      const used = await type(
        ['agent', 'enrol', '--url', url, '--token', tokens.get('gw-001')!, '--data', at('thief')],
        1,
      )
      assert.match(used, /unknown, or was used/)
    },
  )

  const flow = await Flow.start(mosquitto.url, [...agents], perSecond)
  cleanUp(t, () => flow.stop())

  await t.test('a push is checked, shown, signed, and becomes good', async () => {
    await write(
      'wrong.yaml',
      shared({ decode: [{ topic: 'x', format: 'xml' }], outbox: { nonsense: 1 } }),
    )
    const refused = await failing('push', '--agent', 'gw-001', '--file', at('wrong.yaml'))
    assert.match(refused, /2 problems/)
    await write('base.yaml', shared())
    const said = await fleet('push', '--group', 'boilers', '--file', at('base.yaml'))
    assert.match(said, /version 1/)
    const { reported } = await show('gw-002')
    assert.equal(reported.version, 1)
    assert.equal(reported.state, 'good')
  })

  await t.test('a rehearsal on the gateway says what a filter would gain and lose', async () => {
    const filter = [
      { match: { metric: 'counter' }, reduce: { method: 'deadband', error: 5, heartbeat: '10m' } },
    ]
    await write('filter.yaml', shared({ filter }))
    const text = await fleet('rehearse', '--agent', 'gw-001', '--file', at('filter.yaml'), '--json')
    const { readings, running: now, candidate } = JSON.parse(text)
    assert.ok(readings > 1_000, text)
    assert.equal(now.suppressed, 0)
    // Each device counts up by one, so one in six is further than 5 from the one before it.
    assert.ok(candidate.suppressed > readings / 2, text)
    assert.ok(candidate.bytes > 0 && now.bytes > 0, text)
    assert.equal((await show('gw-001')).reported.version, 1, 'nothing was applied')
  })

  await t.test('a bad push takes itself back', async () => {
    await write(
      'bad.yaml',
      shared({ decode: [{ topic: 'elsewhere/{device}/{metric}', format: 'json' }] }),
    )
    const said = await failing('push', '--agent', 'gw-001', '--file', at('bad.yaml'))
    assert.match(said, /gw-001 has reverted version 2 and runs version 1/)
    assert.match(said, /\+ decode\.0\.topic: "elsewhere/)
    const { reported } = await show('gw-001')
    assert.equal(reported.version, 1)
  })

  await t.test('a rollout halts at a bad wave and takes it back where it went', async () => {
    await write(
      'rollout.yaml',
      shared({
        decode: [{ topic: `${label('site')}/${label('path')}/{device}/{metric}`, format: 'json' }],
        uplink: { url, retry: { base: '200ms', max: '2s' }, batch: { maxAge: '700ms' } },
      }),
    )
    const rollout = ['--group', 'boilers', '--file', at('rollout.yaml'), '--waves', '1,2,100%']
    const options = ['--pause', '1s', '--max-failures', '0', '--min-good', '90%', '--timeout', '2m']
    const said = await failing('rollout', ...rollout, ...options, '--revert')
    assert.match(said, /has halted: 1 of 3 agents failed, at most 0 may/)
    for (const agent of agents)
      await poll(async () => {
        const { reported } = await show(agent)
        return reported.state === 'good' && reported.version === 4
      }, `${agent} has gone back to what it had, as version 4`)
  })

  await t.test('a command is carried out and answered', async () => {
    const result = JSON.parse(await fleet('command', 'flush', '--agent', 'gw-002'))
    assert.equal(result.state, 'done')
  })

  await t.test('a revoked gateway is shut out at once, and told of in the list', async () => {
    await fleet('revoke', 'gw-003')
    const rows = await fleet('ls')
    assert.match(rows, /gw-003\s+revoked/)
    await poll(async () => {
      const text = await type(['agent', 'status', '--config', at('gw-003.yaml'), '--json'])
      return /403|revoked/.test(JSON.stringify(JSON.parse(text).uplink))
    }, 'its readings are refused')
  })

  await t.test('the audit log fits together, and shows what was done', async () => {
    assert.match(await fleet('audit', 'verify'), /each fits on the one before it/)
    const log = await fleet('audit')
    for (const words of [
      /manager:alice\s+invite/,
      /gw-001\s+enrol/,
      /manager:alice\s+rollout/,
      /manager:alice\s+revoke/,
    ])
      assert.match(log, words)
    const copy = at('audit.jsonl')
    const lines = (await readFile(join(folder, 'collector/fleet/audit.jsonl'), 'utf8')).split('\n')
    await writeFile(copy, lines.with(3, lines[3]!.replace('gw-', 'gx-')).join('\n'))
    assert.match(await failing('audit', 'verify', '--file', copy), /was changed/)
  })

  await t.test('of all readings none was lost and none is there twice', async () => {
    const sent = await flow.stop()
    const shutOut = 'gw-003'
    const waiting = new Map<string, number>()
    for (const agent of agents)
      await poll(async () => {
        const text = await type(['agent', 'status', '--config', at(`${agent}.yaml`), '--json'])
        const { ledger, lanes } = JSON.parse(text) as Status
        const left = Object.values(lanes).reduce((sum, { sequences }) => sum + sequences, 0)
        waiting.set(agent, left)
        const all = ledger.received - ledger.deduplicated >= sent.get(agent)!
        return all && (agent === shutOut || left === 0)
      }, `${agent} has taken all, and delivered what it may`)
    for (const agent of agents) await running.get(agent)!.stop()
    const found = await tally(at('collector'))
    for (const agent of agents) {
      const { distinct, repeated } = found.get(agent) ?? { distinct: 0, repeated: 0 }
      const [all, left] = [sent.get(agent)!, waiting.get(agent)!]
      assert.equal(repeated, 0, `${agent}: readings that are there twice`)
      if (agent !== shutOut) assert.equal(distinct, all, `${agent}: readings that are there`)
      // The collector may have taken a batch for which the answer was cut off.
      else assert.ok(distinct <= all && distinct + left >= all, `${all}: ${distinct} and ${left}`)
    }
    t.diagnostic(
      `${[...sent.values()].reduce((a, b) => a + b)} readings at ${Math.round(flow.rate)}/s`,
    )
    assert.ok(flow.rate > 0.9 * perSecond, `${flow.rate} readings/s were sent`)
  })

  await t.test('no key and no token is in what was logged, or kept by the collector', async () => {
    await collector.stop()
    const keys: string[] = []
    for (const home of ['fleet', ...agents])
      for (const name of await readdir(at(home), { recursive: true }))
        if (name.endsWith('key.pem')) keys.push(await readFile(join(at(home), name), 'utf8'))
    // gw-003 enrolled by a token that is in its own file.
    const secrets = [
      ...keys.filter((pem) => /PRIVATE/.test(pem)).map((pem) => pem.split('\n')[1]!),
      ...[...tokens.values()].map((token) => token.split('.')[1]!),
    ]
    assert.equal(secrets.length, 4 + agents.length + tokens.size)
    const said = [collector, ...running.values()].map(({ stdout, stderr }) => stdout + stderr)
    const kept = await Promise.all(
      ['audit.jsonl', 'heard.json'].map((name) =>
        readFile(join(at('collector/fleet'), name), 'utf8'),
      ),
    )
    for (const text of [...said, ...kept]) {
      assert.ok(text.length > 0)
      for (const secret of secrets) assert.ok(!text.includes(secret))
      assert.doesNotMatch(text, /PRIVATE KEY/)
    }
  })
  await rm(at('thief'), { recursive: true, force: true })
})
