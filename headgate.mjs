#!/usr/bin/env node
// The command `headgate`. Plain JavaScript that runs on any Node from 20: it finds the Node that the
// lockfile pins and hands over to it, because the programs are TypeScript run by type stripping.
import { spawn } from 'node:child_process'
import { createRequire } from 'node:module'

const pinned = '24.21.0'

// A gateway has little memory. These save the agent 30 MB, and 80 more under full load: one heap of the C library for
// all threads, which is asked for before a process starts, less room for new objects, and none of them among the old
// ones, where V8 puts those of a busy agent because most live for as long as a commit takes. With groups of a thousand
// messages, as brokers send them, that takes a twentieth less of the processor, with groups of ten thousand a tenth more.
const frugal = {
  heaps: 'MALLOC_ARENA_MAX',
  flags: ['--max-semi-space-size=4', '--no-allocation-site-pretenuring'],
}

if (
  process.versions.node === pinned &&
  process.argv[2] === 'agent' &&
  process.argv[3] === 'run' &&
  process.env[frugal.heaps] === undefined
)
  process.execve(
    process.execPath,
    [process.execPath, ...process.execArgv, ...frugal.flags, ...process.argv.slice(1)],
    { ...process.env, [frugal.heaps]: '1' },
  )

if (process.versions.node === pinned || process.env.HEADGATE_NODE === 'any') {
  const { main } = await import('./shared/command.ts')
  const agent = () => import('./agent/main.ts')
  const collector = () => import('./collector/main.ts')
  const simulator = () => import('./firmware-sim/main.ts')
  await main(process.argv.slice(2), {
    up: {
      load: simulator,
      about: 'run the whole of it on this machine: broker, devices, agent, collector',
    },
    agent: {
      load: agent,
      about: 'take readings from MQTT, keep them, forward them',
      example: 'agent run --config agent.yaml',
    },
    collector: {
      load: collector,
      about: 'take batches from agents into the stream log',
      example: 'collector run --config collector.yaml',
    },
    sim: { load: simulator, about: 'play sensors: replay recorded traces over MQTT' },
    log: {
      load: collector,
      about: 'read and check the stream log',
      example: 'log cat --data ./var/collector --from 2026-01-01T00:00:00Z',
    },
    sink: {
      load: collector,
      about: 'look after what the log is written to',
      example: 'sink ls --collector http://127.0.0.1:7070',
    },
    outbox: {
      load: agent,
      about: "look into a stopped agent's outbox",
      example: 'outbox ls --data ./var/gw-001',
    },
    filter: {
      load: agent,
      about: 'try a filter on recorded traces',
      example: 'filter try --trace machine_temperature.csv --plot machine.svg',
    },
    fleet: {
      load: async () => {
        const { fleetProgram } = await import('./collector/fleet-command.ts')
        return fleetProgram(() => import('./agent/document.ts'))
      },
      about: 'manage gateways from afar: who belongs, what each runs',
      example: 'fleet init --url https://collector.example.com:7443',
    },
    broker: { load: simulator, about: 'run a small MQTT broker, as `up` uses it' },
  })
} else {
  const name = `node-${process.platform}-${process.arch}`
  let node
  try {
    node = createRequire(import.meta.url).resolve(`${name}/bin/node`)
  } catch {
    process.stderr.write(
      `headgate: Node ${pinned} is missing for ${process.platform} ${process.arch}: run "npm ci" in the project ` +
        'without --omit=optional (supported: linux x64 and arm64)\n',
    )
    process.exit(1)
  }
  const child = spawn(node, [import.meta.filename, ...process.argv.slice(2)], { stdio: 'inherit' })
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
  child.on('exit', (code, signal) => {
    if (signal) process.kill(process.pid, signal)
    else process.exit(code ?? 1)
  })
}
