import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { copyFile, readFile, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import type { TestContext } from 'node:test'
import { promisify } from 'node:util'
import { cleanUp } from '../../support/clean-up.ts'
import { needs } from '../../support/needs.ts'
import { poll } from '../../support/poll.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const run = promisify(execFile)

export interface Ran {
  code: number
  stdout: string
  stderr: string
}

/** Debian 12 with systemd and nothing else, booted in a container on this machine's kernel and network. */
export class Machine {
  readonly #root: string
  readonly #nsenter: string
  #container: ChildProcess | undefined
  #init = 0

  private constructor(root: string, nsenter: string) {
    this.#root = root
    this.#nsenter = nsenter
  }

  /** Undefined where it cannot be had and the test was skipped. */
  static async boot(t: TestContext): Promise<Machine | undefined> {
    if (process.getuid?.() !== 0) {
      t.skip('needs root, to boot a container')
      return undefined
    }
    const debootstrap = needs(t, 'debootstrap')
    const nspawn = needs(t, 'systemd-nspawn')
    const nsenter = needs(t, 'nsenter')
    if (!debootstrap || !nspawn || !nsenter) return undefined
    const root = join(await temporaryDirectory(t), 'root')
    const packages = '--include=systemd,systemd-sysv'
    await run(debootstrap, ['--variant=minbase', packages, 'bookworm', root])
    const machine = new Machine(root, nsenter)
    cleanUp(t, () => machine.#kill())
    await machine.#start(nspawn)
    return machine
  }

  async #start(nspawn: string): Promise<void> {
    // Where systemd does not run there is nobody to ask for a scope.
    const scope = existsSync('/run/systemd/system') ? [] : ['--keep-unit']
    const container = spawn(
      nspawn,
      ['--directory', this.#root, '--boot', '--register=no', ...scope, '--console=pipe', '--quiet'],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    )
    this.#container = container
    let said = ''
    container.stderr!.setEncoding('utf8').on('data', (text: string) => {
      said += text
    })
    const tasks = `/proc/${container.pid}/task/${container.pid}`
    this.#init = await poll(async () => {
      if (container.exitCode !== null) throw new Error(`the container does not start: ${said}`)
      const children = readFileSync(`${tasks}/children`, 'utf8').trim().split(' ').map(Number)
      return children.find(isFirst)
    }, 'the container has a first process')
    await poll(
      async () => {
        const { stdout } = await this.run('systemctl', 'is-system-running')
        return /running|degraded/.test(stdout)
      },
      'the container has booted',
      120_000,
    )
  }

  /** Runs a program in it to its end. */
  async run(program: string, ...args: string[]): Promise<Ran> {
    const enter = ['--target', String(this.#init), '--all', '--root', '--wd=/']
    const env = ['/usr/bin/env', '-i', 'PATH=/usr/sbin:/usr/bin:/sbin:/bin', 'LC_ALL=C.UTF-8']
    try {
      const ran = await run(this.#nsenter, [...enter, '--', ...env, program, ...args])
      return { code: 0, ...ran }
    } catch (error) {
      const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string }
      return { code, stdout, stderr }
    }
  }

  /** As `run`; what it printed, without the last line's end. @throws when it fails */
  async ask(program: string, ...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.run(program, ...args)
    if (code !== 0) throw new Error(`${program} ${args.join(' ')}: ${code}: ${stdout}${stderr}`)
    return stdout.trimEnd()
  }

  /** Installs a package from a file of this machine. */
  async install(deb: string): Promise<Ran> {
    await copyFile(deb, this.path(`/root/${basename(deb)}`))
    return this.run('dpkg', '--install', `/root/${basename(deb)}`)
  }

  /** Where one of its files, on any of its file systems, is seen from this machine. */
  path(inside: string): string {
    return join(`/proc/${this.#init}/root`, inside)
  }

  read(path: string): Promise<string> {
    return readFile(this.path(path), 'utf8')
  }

  async write(path: string, text: string): Promise<void> {
    await writeFile(this.path(path), text)
  }

  async #kill(): Promise<void> {
    const container = this.#container
    if (!container || container.exitCode !== null || container.signalCode !== null) return
    const gone = once(container, 'exit')
    // The first process takes all others of the container with it.
    if (this.#init) process.kill(this.#init, 'SIGKILL')
    else container.kill('SIGKILL')
    await gone
  }
}

/** Whether a process is number 1 to itself. Before it there is, for a moment, one that sets up the mounts. */
function isFirst(pid: number): boolean {
  try {
    return /^NSpid:\t\d+\t1$/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false // It has ended meanwhile.
  }
}
