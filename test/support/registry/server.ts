import { type ChildProcess, spawn } from 'node:child_process'
import { createWriteStream } from 'node:fs'
import { glob, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { Authority } from '../../../collector/fleet/authority.ts'
import { cleanUp, type Test } from '../clean-up.ts'
import { endProcess } from '../end-process.ts'
import { freePort } from '../free-port.ts'
import { jarsOf } from '../jars.ts'
import { poll } from '../poll.ts'
import { temporaryDirectory } from '../temporary.ts'

const pom = new URL('pom.xml', import.meta.url)
const jvm = ['-Xmx256m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-Xshare:auto']

/** An Apicurio Registry, which forgets everything with each kill; gone when the test ends. */
export class SchemaRegistry {
  /** Of its interface that is compatible with Confluent's. */
  readonly url: string
  /** … over TLS, and who vouches for it: PEM. */
  readonly secure: { url: string; ca: string }
  readonly #command: readonly string[]
  readonly #logFile: string
  #process: ChildProcess | undefined

  private constructor(
    { port, securePort }: { port: number; securePort: number },
    ca: string,
    command: readonly string[],
    logFile: string,
  ) {
    const path = '/apis/ccompat/v7'
    this.url = `http://127.0.0.1:${port}${path}`
    this.secure = { url: `https://127.0.0.1:${securePort}${path}`, ca }
    this.#command = command
    this.#logFile = logFile
  }

  /**
   * @param t whose end is its: a test, or a file's scope
   * @returns undefined where it cannot be had and the test was skipped
   */
  static async start(t: Test & Pick<TestContext, 'skip'>): Promise<SchemaRegistry | undefined> {
    const folder = await jarsOf(t, pom, 'apicurio-registry-app', 'unpack')
    if (folder === undefined) return undefined
    const [jar] = await Array.fromAsync(glob(join(folder, '*-runner.jar')))
    const directory = await temporaryDirectory(t)
    const place = { port: await freePort(), securePort: await freePort() }
    const nowMs = Date.now()
    const { authority } = await Authority.create('authority', nowMs)
    const own = { commonName: 'registry', lifetimeMs: 86_400_000, nowMs, names: ['127.0.0.1'] }
    const certificate = await authority.make(own)
    const files = { cert: join(directory, 'cert.pem'), key: join(directory, 'key.pem') }
    await writeFile(files.cert, certificate.pem)
    await writeFile(files.key, certificate.keyPem)
    const settings = {
      'quarkus.http.host': '127.0.0.1',
      'quarkus.http.port': place.port,
      'quarkus.http.ssl-port': place.securePort,
      'quarkus.http.ssl.certificate.files': files.cert,
      'quarkus.http.ssl.certificate.key-files': files.key,
    }
    const defined = Object.entries(settings).map(([name, value]) => `-D${name}=${value}`)
    const command = [...jvm, ...defined, '-jar', jar!]
    const log = join(directory, 'registry.log')
    const registry = new SchemaRegistry(place, authority.certificatePem, command, log)
    cleanUp(t, () => registry.kill())
    registry.launch()
    await registry.healthy()
    return registry
  }

  launch(): void {
    const child = spawn('java', this.#command, { stdio: ['ignore', 'pipe', 'pipe'] })
    for (const output of [child.stdout!, child.stderr!])
      output.pipe(createWriteStream(this.#logFile, { flags: 'a' }))
    this.#process = child
  }

  /** Resolves once it serves. */
  async healthy(): Promise<void> {
    await poll(
      async () => {
        if (this.#process?.exitCode != null) throw new Error(await readFile(this.#logFile, 'utf8'))
        return (await fetch(`${this.url}/subjects`).catch(() => undefined))?.ok
      },
      `the schema registry at ${this.url} serves`,
      120_000,
    )
  }

  /** Asks it, as an administrator would. */
  async ask(
    method: string,
    path: string,
    body?: object,
  ): Promise<{ status: number; body: unknown }> {
    const answer = await fetch(`${this.url}${path}`, {
      method,
      headers: { 'content-type': 'application/vnd.schemaregistry.v1+json' },
      ...(body && { body: JSON.stringify(body) }),
    })
    return { status: answer.status, body: await answer.json() }
  }

  async kill(): Promise<void> {
    const child = this.#process
    this.#process = undefined
    await endProcess(child)
  }
}
