import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import type { TestContext } from 'node:test'
import { type IPublishPacket, parser } from 'mqtt-packet'

/** A wire between client and broker that a test can cut. */
export class Cut {
  readonly url: string
  /** While false, what the broker says is thrown away. */
  answers = true
  /** What the client has published, as it was on the wire. */
  readonly published: IPublishPacket[] = []
  readonly #sockets: Set<Socket>

  private constructor(url: string, sockets: Set<Socket>) {
    this.url = url
    this.#sockets = sockets
  }

  static async open(t: TestContext, brokerUrl: string): Promise<Cut> {
    const target = new URL(brokerUrl)
    const sockets = new Set<Socket>()
    const server = createServer((near) => {
      const far = connect(Number(target.port), target.hostname)
      const outgoing = parser({ protocolVersion: 4 }).on('packet', (packet) => {
        if (packet.cmd === 'publish') cut.published.push(packet)
      })
      near.on('data', (bytes) => outgoing.parse(bytes))
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        sockets.add(from)
        from.on('data', (bytes) => {
          if (from === near || cut.answers) to.write(bytes)
        })
        from.on('error', () => {})
        from.on('close', () => {
          sockets.delete(from)
          to.destroy()
        })
      }
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as { port: number }
    const cut = new Cut(`mqtt://127.0.0.1:${port}`, sockets)
    t.after(() => {
      server.close()
      cut.now()
    })
    return cut
  }

  now(): void {
    for (const socket of this.#sockets) socket.destroy()
  }
}
