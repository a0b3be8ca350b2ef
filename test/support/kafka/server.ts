import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { createWriteStream } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { promisify } from 'node:util'
import { Admin } from '@platformatic/kafka'
import { Authority } from '../../../collector/fleet/authority.ts'
import { cleanUp, type Test } from '../clean-up.ts'
import { endProcess } from '../end-process.ts'
import { freePort } from '../free-port.ts'
import { poll } from '../poll.ts'
import { here, type Site } from '../site.ts'
import { temporaryDirectory } from '../temporary.ts'
import { kafkaJars } from './program.ts'

const run = promisify(execFile)
/** Any 16 bytes, as base64url. */
const clusterId = 'aGVhZGdhdGUtdGVzdC0wMQ'
const plainLogin = 'org.apache.kafka.common.security.plain.PlainLoginModule required'
/** Small and quick to start, for a broker that lives a minute. */
const quick = ['-Xmx256m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-Xshare:auto']

/** Whom a broker lets in over TLS, and by what it is known. */
export interface Secure {
  address: string
  /** PEM of its authority. */
  ca: string
  username: string
  password: string
}

/** One Kafka broker, which is one of the controllers too, over any number of starts and kills. */
export class KafkaNode {
  readonly address: string
  readonly secure: Secure
  readonly #id: number
  readonly #command: readonly string[]
  readonly #logFile: string
  #process: ChildProcess | undefined

  private constructor(
    id: number,
    { address, secure }: { address: string; secure: Secure },
    command: readonly string[],
    logFile: string,
  ) {
    this.#id = id
    this.address = address
    this.secure = secure
    this.#command = command
    this.#logFile = logFile
  }

  /**
   * @param t whose end is theirs: a test, or a file's `after`
   * @param options.jvm of a broker that has to be fast rather than small
   */
  static async start(
    t: Test & Pick<TestContext, 'skip'>,
    options: { nodes?: number; jvm?: readonly string[]; site?: Site } = {},
  ): Promise<KafkaNode[] | undefined> {
    const { nodes = 1, jvm = quick, site = here } = options
    const jars = await kafkaJars(t)
    if (!jars) return undefined
    const directory = await temporaryDirectory(t)
    const ids = Array.from({ length: nodes }, (_, id) => id)
    const controllers = await Promise.all(ids.map(freePort))
    const ports = await Promise.all(ids.map(freePort))
    const securePorts = await Promise.all(ids.map(freePort))
    const nowMs = Date.now()
    const { authority } = await Authority.create('authority', nowMs)
    const names = [...new Set(ids.map((id) => site.host(id)))]
    const own = { commonName: 'kafka', lifetimeMs: 86_400_000, nowMs, names }
    const certificate = await authority.make(own)
    const oneLine = (pem: string) => pem.trim().replaceAll('\n', '\\n')
    const java = ['-cp', join(jars, '*'), '-Dorg.slf4j.simpleLogger.defaultLogLevel=warn']
    const started = await Promise.all(
      ids.map(async (id) => {
        const config = join(directory, `${id}.properties`)
        const lines = {
          'process.roles': 'broker,controller',
          'node.id': id,
          'controller.quorum.voters': ids.map((n) => `${n}@${site.host(n)}:${controllers[n]}`),
          'controller.listener.names': 'CONTROLLER',
          listeners: [
            `PLAINTEXT://${site.host(id)}:${ports[id]}`,
            `SECURE://${site.host(id)}:${securePorts[id]}`,
            `CONTROLLER://${site.host(id)}:${controllers[id]}`,
          ],
          'listener.security.protocol.map':
            'PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL',
          'ssl.keystore.type': 'PEM',
          'ssl.keystore.certificate.chain': oneLine(certificate.pem),
          'ssl.keystore.key': oneLine(certificate.keyPem),
          'sasl.enabled.mechanisms': 'PLAIN',
          'listener.name.secure.plain.sasl.jaas.config': `${plainLogin} user_collector="secret";`,
          'log.dirs': join(directory, String(id)),
          'offsets.topic.replication.factor': nodes,
          'offsets.topic.num.partitions': 1,
          'transaction.state.log.replication.factor': nodes,
          'transaction.state.log.min.isr': nodes > 1 ? 2 : 1,
          'transaction.state.log.num.partitions': 4,
          'group.initial.rebalance.delay.ms': 0,
          'auto.create.topics.enable': false,
          // It goes by the records' own times, and what tests send is from long ago.
          'log.retention.ms': -1,
          // A killed broker is given up, and another leads, within so long.
          'broker.session.timeout.ms': 6000,
          'broker.heartbeat.interval.ms': 500,
          'controlled.shutdown.enable': false,
        }
        const text = Object.entries(lines).map(([name, value]) => `${name}=${value}`)
        await writeFile(config, `${text.join('\n')}\n`)
        const format = ['kafka.tools.StorageTool', 'format', '-t', clusterId, '-c', config]
        await run('java', [...quick, ...java, ...format])
        const command = [...site.through(id), 'java', ...jvm, ...java, 'kafka.Kafka', config]
        const secure = {
          address: `${site.host(id)}:${securePorts[id]}`,
          ca: authority.certificatePem,
          username: 'collector',
          password: 'secret',
        }
        const place = { address: `${site.host(id)}:${ports[id]}`, secure }
        const node = new KafkaNode(id, place, command, join(directory, `${id}.log`))
        cleanUp(t, () => node.kill())
        node.launch()
        return node
      }),
    )
    await Promise.all(started.map((each) => each.healthy()))
    return started
  }

  get pid(): number {
    return this.#process!.pid!
  }

  launch(): void {
    const [program, ...args] = this.#command
    const child = spawn(program!, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    for (const output of [child.stdout!, child.stderr!])
      output.pipe(createWriteStream(this.#logFile, { flags: 'a' }))
    this.#process = child
  }

  /** Resolves once the others know that it serves. */
  async healthy(): Promise<void> {
    const admin = new Admin({
      clientId: 'test',
      bootstrapBrokers: [this.address],
      retries: 0,
      connectTimeout: 1000,
    })
    try {
      await poll(
        async () => {
          if (this.#process?.exitCode != null)
            throw new Error(await readFile(this.#logFile, 'utf8'))
          const { brokers } = await admin
            .metadata({ forceUpdate: true })
            .catch(() => ({ brokers: undefined }))
          return brokers?.has(this.#id)
        },
        `the Kafka broker at ${this.address} serves`,
        120_000,
      )
    } finally {
      await admin.close()
    }
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const child = this.#process
    this.#process = undefined
    await endProcess(child, signal)
  }
}
