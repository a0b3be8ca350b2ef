import { execFile, spawn } from 'node:child_process'
import type { TestContext } from 'node:test'
import { promisify } from 'node:util'
import type { Target } from './balancer.ts'
import { cleanUp } from './clean-up.ts'
import { absent, needs } from './needs.ts'

const run = promisify(execFile)
const ip = (...args: string[]) => run('ip', args)

/**
 * Machines in network namespaces: a switch joins them and this machine, and each has a cable of its own
 * to this machine besides, which stays when it is cut off from the switch.
 */
export class Network {
  readonly #id: string
  readonly #net: number
  readonly #count: number

  private constructor(id: string, net: number, count: number) {
    this.#id = id
    this.#net = net
    this.#count = count
  }

  /** Undefined where it cannot be had and the test was skipped. */
  static async make(t: TestContext, count: number): Promise<Network | undefined> {
    if (!needs(t, 'ip')) return undefined
    if (process.getuid?.() !== 0) {
      absent(t, 'needs root, to make network namespaces')
      return undefined
    }
    const network = new Network(`hg${process.pid % 100_000}`, process.pid % 250, count)
    cleanUp(t, () => network.#remove())
    await network.#make()
    return network
  }

  /** Of a machine, on the switch. */
  host(machine: number): string {
    return `10.91.${this.#net}.${machine + 1}`
  }

  /** Runs a program on a machine and becomes it. */
  through(machine: number): readonly string[] {
    return ['ip', 'netns', 'exec', this.#space(machine)]
  }

  /** Cuts a machine off from the switch. */
  async cut(machine: number): Promise<void> {
    await ip('link', 'set', this.#port(machine), 'down')
  }

  /** From now on what a machine sends to another goes astray; the other way, and between others, all arrives. */
  async mute(machine: number, towards: number): Promise<void> {
    const astray = ['lladdr', '02:00:00:00:00:01', 'dev', 'switch', 'nud', 'permanent']
    await ip('-n', this.#space(machine), 'neigh', 'replace', this.host(towards), ...astray)
  }

  /** Whatever was done to a machine is over. */
  async join(machine: number): Promise<void> {
    await ip('link', 'set', this.#port(machine), 'up')
    await ip('-n', this.#space(machine), 'neigh', 'flush', 'dev', 'switch', 'nud', 'all')
  }

  /** Where a port of the machine's loopback can be reached from here, over its own cable. */
  async expose(t: TestContext, machine: number, port: number): Promise<Target> {
    const host = `10.92.${this.#net}.${machine * 4 + 2}`
    const relay = `
      const { connect, createServer } = require('node:net')
      createServer((near) => {
        const far = connect(${port}, '127.0.0.1')
        for (const [a, b] of [[near, far], [far, near]])
          a.on('error', () => {}).on('close', () => b.destroy()).pipe(b)
      }).listen(${port}, '${host}', () => console.log('up'))`
    const [program, ...args] = [...this.through(machine), process.execPath, '-e', relay]
    const child = spawn(program!, args, { stdio: ['ignore', 'pipe', 'inherit'] })
    cleanUp(t, () => child.kill('SIGKILL'))
    await new Promise((resolve) => child.stdout.once('data', resolve))
    return { host, port }
  }

  #space(machine: number): string {
    return `${this.#id}-${machine}`
  }

  #port(machine: number): string {
    return `${this.#id}p${machine}`
  }

  async #make(): Promise<void> {
    const bridge = `${this.#id}b`
    await ip('link', 'add', bridge, 'type', 'bridge')
    await ip('addr', 'add', `10.91.${this.#net}.254/24`, 'dev', bridge)
    await ip('link', 'set', bridge, 'up')
    for (let machine = 0; machine < this.#count; machine++) {
      const space = this.#space(machine)
      const inside = (...args: string[]) => ip('-n', space, ...args)
      const cable = `${this.#id}c${machine}`
      await ip('netns', 'add', space)
      await inside('link', 'set', 'lo', 'up')
      const port = this.#port(machine)
      await ip('link', 'add', port, 'type', 'veth', 'peer', 'name', 'switch', 'netns', space)
      await ip('link', 'set', port, 'master', bridge, 'up')
      await inside('addr', 'add', `${this.host(machine)}/24`, 'dev', 'switch')
      await inside('link', 'set', 'switch', 'up')
      await ip('link', 'add', cable, 'type', 'veth', 'peer', 'name', 'cable', 'netns', space)
      const at = (end: number) => `10.92.${this.#net}.${machine * 4 + end}/30`
      await ip('addr', 'add', at(1), 'dev', cable)
      await ip('link', 'set', cable, 'up')
      await inside('addr', 'add', at(2), 'dev', 'cable')
      await inside('link', 'set', 'cable', 'up')
    }
  }

  async #remove(): Promise<void> {
    for (let machine = 0; machine < this.#count; machine++)
      await ip('netns', 'del', this.#space(machine)).catch(() => {})
    await ip('link', 'del', `${this.#id}b`).catch(() => {})
  }
}
