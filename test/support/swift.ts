import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { promisify } from 'node:util'
import { cleanUp } from './clean-up.ts'
import { endProcess } from './end-process.ts'
import { freePort } from './free-port.ts'
import { absent, needs } from './needs.ts'
import { poll } from './poll.ts'
import { temporaryDirectory } from './temporary.ts'

const run = promisify(execFile)
const parts = ['account', 'container', 'object'] as const

/** OpenStack Swift with its S3 interface, which checks signatures; on loopback, gone with the test. */
export class Swift {
  readonly region = 'us-east-1'
  readonly credentials = { accessKeyId: 'test:tester', secretAccessKey: 'testing' }
  readonly #port: number
  readonly #processes: ChildProcess[] = []

  private constructor(port: number) {
    this.#port = port
  }

  /** Undefined where it cannot be had and the test was skipped. */
  static async start(t: TestContext): Promise<Swift | undefined> {
    const programs = ['memcached', 'swift-proxy-server']
    for (const program of [...programs, ...parts.map((part) => `swift-${part}-server`)])
      if (!needs(t, program)) return undefined
    if (process.getuid?.() !== 0) {
      absent(t, 'needs root, since Swift reads /etc/swift')
      return undefined
    }
    const directory = await temporaryDirectory(t)
    const swift = new Swift(await freePort())
    cleanUp(t, () => swift.#stop())
    await swift.#start(directory)
    return swift
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.#port}`
  }

  async #start(directory: string): Promise<void> {
    await mkdir(join(directory, 'devices', 'd1'), { recursive: true })
    const common = ['bind_ip = 127.0.0.1', `swift_dir = ${directory}`, 'user = root', 'workers = 0']
    await writeFile(
      join(directory, 'swift.conf'),
      '[swift-hash]\nswift_hash_path_suffix = test\nswift_hash_path_prefix = test\n' +
        '[storage-policy:0]\nname = one\ndefault = yes\n',
    )
    for (const part of parts) {
      const port = await freePort()
      const builder = join(directory, `${part}.builder`)
      const ring = (...args: string[]) => run('swift-ring-builder', [builder, ...args])
      await ring('create', '4', '1', '1')
      await ring('add', `r1z1-127.0.0.1:${port}/d1`, '1')
      await ring('rebalance')
      const lines = [
        '[DEFAULT]',
        ...common,
        `bind_port = ${port}`,
        `devices = ${join(directory, 'devices')}`,
        'mount_check = false',
        '[pipeline:main]',
        `pipeline = ${part}-server`,
        `[app:${part}-server]`,
        `use = egg:swift#${part}`,
      ]
      await this.#launch(directory, part, lines)
      // A proxy that finds one of them absent does without it for a while.
      await answers(`http://127.0.0.1:${port}/`)
    }
    const cache = await freePort()
    const memcached = ['-p', String(cache), '-l', '127.0.0.1', '-u', 'root', '-m', '16']
    this.#processes.push(spawn('memcached', memcached, { stdio: 'ignore' }))
    await this.#launch(directory, 'proxy', [
      '[DEFAULT]',
      ...common,
      `bind_port = ${this.#port}`,
      '[pipeline:main]',
      'pipeline = catch_errors healthcheck cache s3api tempauth proxy-server',
      '[filter:catch_errors]',
      'use = egg:swift#catch_errors',
      '[filter:healthcheck]',
      'use = egg:swift#healthcheck',
      '[filter:cache]',
      'use = egg:swift#memcache',
      `memcache_servers = 127.0.0.1:${cache}`,
      '[filter:s3api]',
      'use = egg:swift#s3api',
      '[filter:tempauth]',
      'use = egg:swift#tempauth',
      'user_test_tester = testing .admin',
      '[app:proxy-server]',
      'use = egg:swift#proxy',
      'account_autocreate = true',
    ])
    await answers(`${this.endpoint}/healthcheck`)
  }

  /** A new bucket. */
  async bucket(name: string): Promise<void> {
    const { CreateBucketCommand, S3Client } = await import('@aws-sdk/client-s3')
    const { endpoint, region, credentials } = this
    const client = new S3Client({ endpoint, region, credentials, forcePathStyle: true })
    await client.send(new CreateBucketCommand({ Bucket: name }))
    client.destroy()
  }

  async #launch(directory: string, part: string, lines: readonly string[]): Promise<void> {
    const config = join(directory, `${part}.conf`)
    await writeFile(config, `${lines.join('\n')}\n`)
    // It looks for swift.conf nowhere else: it gets an /etc/swift of its own.
    const inside = `mkdir -p /etc/swift && mount --bind "$1" /etc/swift && exec swift-${part}-server "$2"`
    const args = ['--mount', 'sh', '-c', inside, 'sh', directory, config]
    this.#processes.push(spawn('unshare', args, { stdio: 'ignore' }))
  }

  async #stop(): Promise<void> {
    for (const child of this.#processes) await endProcess(child)
  }
}

/** Python that loads its libraries on a busy machine takes its time. */
const patienceMs = 120_000

async function answers(url: string): Promise<void> {
  await poll(async () => fetch(url).catch(() => undefined), `${url} answers`, patienceMs)
}
