import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFile, chmod, chown, copyFile, glob, mkdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { promisify } from 'node:util'
import pg from 'pg'
import { cleanUp, type Test } from './clean-up.ts'
import { freePort } from './free-port.ts'
import { absent } from './needs.ts'
import { poll } from './poll.ts'
import { temporaryDirectory } from './temporary.ts'

const run = promisify(execFile)

/** The server will not run as root; Debian's package brings a user for it. */
const asUser = ['setpriv', '--reuid=postgres', '--regid=postgres', '--clear-groups']

/** A PostgreSQL of one's own on loopback, over any number of kills; gone when the test ends. */
export class Postgres {
  readonly port: number
  readonly #programs: string
  readonly #data: string
  #process: ChildProcess | undefined

  private constructor(port: number, programs: string, data: string) {
    this.port = port
    this.#programs = programs
    this.#data = data
  }

  /**
   * @param t whose end is theirs: a test, or a file's scope
   * @param tls PEM files, with which it speaks TLS to who wants to
   * @returns undefined where it cannot be had and the test was skipped
   */
  static async start(
    t: Test & Pick<TestContext, 'skip'>,
    tls?: { cert: string; key: string },
  ): Promise<Postgres | undefined> {
    const [programs] = (await Array.fromAsync(glob('/usr/lib/postgresql/*/bin'))).sort().reverse()
    if (!programs) {
      absent(t, 'needs a PostgreSQL server: apt-get install postgresql')
      return undefined
    }
    const directory = await temporaryDirectory(t)
    const server = new Postgres(await freePort(), programs, join(directory, 'data'))
    await mkdir(server.#data)
    if (process.getuid?.() === 0) {
      const { stdout } = await run('id', ['-u', 'postgres'])
      await chmod(directory, 0o711)
      await chown(server.#data, Number(stdout), Number(stdout))
    }
    const options = [
      '-D',
      server.#data,
      '-U',
      'postgres',
      '-A',
      'trust',
      '-E',
      'UTF8',
      '--no-locale',
    ]
    await server.#run('initdb', [...options, '--no-sync', '--no-instructions'])
    if (tls) {
      // Under these names it looks for them, and it wants to be their owner.
      for (const [name, pem] of [
        ['server.crt', tls.cert],
        ['server.key', tls.key],
      ] as const) {
        const file = join(server.#data, name)
        await copyFile(pem, file)
        const { uid, gid } = await stat(server.#data)
        await chown(file, uid, gid)
        await chmod(file, 0o600)
      }
      await appendFile(join(server.#data, 'postgresql.conf'), 'ssl = on\n')
    }
    cleanUp(t, () => server.kill())
    await server.launch()
    return server
  }

  /** Of a database. */
  url(database = 'postgres'): string {
    return `postgresql://postgres@127.0.0.1:${this.port}/${database}`
  }

  /** A database of the test's own. */
  async database(name: string): Promise<string> {
    await this.query(`CREATE DATABASE ${name}`)
    return this.url(name)
  }

  /** Resolves once it serves. */
  async launch(): Promise<void> {
    const settings = [`port=${this.port}`, 'listen_addresses=127.0.0.1', 'unix_socket_directories=']
    const args = ['-D', this.#data, ...settings.flatMap((setting) => ['-c', setting])]
    await poll(async () => {
      // Until the last process of the one before has seen that it is gone, another cannot start.
      if (!this.#isRunning) this.#process = this.#spawn('postgres', args)
      const client = new pg.Client(this.url())
      client.on('error', () => {})
      return client.connect().then(
        () => client.end().then(() => true),
        () => false,
      )
    }, `PostgreSQL serves on port ${this.port}`)
  }

  /** `kill -9` of the server and all of its processes, by their ids. */
  async kill(): Promise<void> {
    const child = this.#process
    this.#process = undefined
    if (!child?.pid || child.exitCode !== null || child.signalCode !== null) return
    const gone = once(child, 'exit')
    const children = await readFile(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8')
    child.kill('SIGKILL')
    for (const pid of children.trim().split(' ').filter(Boolean)) {
      try {
        process.kill(Number(pid), 'SIGKILL')
      } catch {
        // It has gone by itself.
      }
    }
    await gone
  }

  /** @returns the rows of one statement, in a connection of its own */
  async query(text: string, url = this.url()): Promise<Record<string, unknown>[]> {
    const client = new pg.Client(url)
    client.on('error', () => {})
    await client.connect()
    try {
      return (await client.query(text)).rows
    } finally {
      await client.end()
    }
  }

  get #isRunning(): boolean {
    return this.#process?.exitCode === null && this.#process.signalCode === null
  }

  #command(program: string, args: readonly string[]): [string, string[]] {
    const [first, ...rest] = [
      ...(process.getuid?.() === 0 ? asUser : []),
      join(this.#programs, program),
      ...args,
    ]
    return [first!, rest]
  }

  #spawn(program: string, args: readonly string[]): ChildProcess {
    return spawn(...this.#command(program, args), { stdio: 'ignore', cwd: '/' })
  }

  async #run(program: string, args: readonly string[]): Promise<void> {
    await run(...this.#command(program, args), { cwd: '/' })
  }
}
