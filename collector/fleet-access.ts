import type { IncomingMessage } from 'node:http'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { TLSSocket } from 'node:tls'
import { createWebSocketStream, WebSocketServer } from 'ws'
import type { Logger } from '../shared/log.ts'
import { systemClock } from '../shared/system.ts'
import type { Access } from './access.ts'
import { CertificateAuth } from './auth.ts'
import type { CollectorConfig, FleetConfig } from './config.ts'
import { FleetApi } from './fleet/api.ts'
import type { Authority } from './fleet/authority.ts'
import { FleetBroker } from './fleet/broker.ts'
import type { BusHandler } from './fleet/bus.ts'
import { readAbout, readCollectorFiles } from './fleet/files.ts'
import { Fleet } from './fleet/fleet.ts'
import { RemoteBus } from './fleet/remote-bus.ts'
import { commonNameOf } from './fleet/who.ts'
import type { HttpServer } from './http.ts'

/** Of the collector's certificate as a client of a stock broker; it gets another at each start. */
const clientLifetimeMs = 5 * 365 * 86_400_000
/** The collector's certificate is looked at this often. */
const renewEveryMs = 12 * 3_600_000
/** Largest WebSocket frame: an envelope and a little more. */
const maxFrameBytes = 512 * 1024
/** Where MQTT over WebSocket is spoken on the collector's own port. */
const fleetPath = '/mqtt'

/** @throws UserError when the fleet's folder cannot be used */
export async function openFleetAccess(
  config: CollectorConfig,
  options: FleetConfig,
  logger: Logger,
): Promise<Access> {
  const files = await readCollectorFiles(options.folder, systemClock.wallMs())
  const about = await readAbout(options.folder)
  const fleet = await Fleet.open({
    folder: join(config.data, 'fleet'),
    files,
    lifetimeMs: options.certificates,
    clock: systemClock,
    logger,
  })
  const auth = new CertificateAuth(fleet.registry, systemClock)
  fleet.dropped = (commonName) => auth.drop(commonName)
  const ca = files.authority.certificatePem
  const tls = { ...files.server, ca }
  let api: FleetApi | undefined
  let broker: FleetBroker | undefined
  let cancelRenewal = () => {}
  /** A collector that runs for years has certificates that do not. */
  const renewLater = (server: HttpServer) => {
    cancelRenewal = systemClock.timer(renewEveryMs, () => {
      readCollectorFiles(options.folder, systemClock.wallMs())
        .then((now) => {
          server.setCertificate({ ...now.server, ca })
          broker?.setCertificate({ ...now.server, ca })
        })
        .catch((err) => logger.error({ err }, 'the collector’s certificate cannot be renewed'))
        .finally(() => renewLater(server))
    })
  }
  return {
    auth,
    tls,
    answer: async (request, response, url) => (await api?.answer(request, response, url)) ?? false,
    async start(server) {
      const { url, host = config.http.host, port, maxConnections } = options.broker
      await fleet.start(async (handler) => {
        if (url) return openRemoteBus(url, fleet, files.authority, logger, handler)
        broker = await FleetBroker.open({
          host,
          port,
          maxConnections,
          tls,
          registry: fleet.registry,
          clock: systemClock,
          logger,
          handler,
          cloned: (agent) => fleet.cloned(agent),
        })
        return broker
      })
      const fleetBroker =
        options.broker.announce ?? url ?? `mqtts://${new URL(about.url).hostname}:${broker!.port}`
      api = new FleetApi({ fleet, auth, ca, configKeyPem: files.configKeyPem, fleetBroker })
      if (broker) serveWebSocket(server, broker)
      renewLater(server)
      logger.info({ broker: fleetBroker, agents: fleet.state.members.size }, 'the fleet is open')
    },
    async stop() {
      cancelRenewal()
      api?.stop()
      fleet.stopListening()
      await broker?.[Symbol.asyncDispose]()
    },
    async [Symbol.asyncDispose]() {
      await fleet[Symbol.asyncDispose]()
    },
  }
}

/** The way to a stock broker, with a certificate of the collector as its client. */
async function openRemoteBus(
  url: string,
  fleet: Fleet,
  authority: Authority,
  logger: Logger,
  handler: BusHandler,
): Promise<RemoteBus> {
  const { pem, keyPem } = await authority.make({
    commonName: commonNameOf({ role: 'collector', name: 'fleet' }),
    lifetimeMs: clientLifetimeMs,
    nowMs: systemClock.wallMs(),
  })
  const onConnect = () =>
    fleet.republish().catch((err) => logger.error({ err }, 'the fleet broker does not take it all'))
  const tls = { cert: pem, key: keyPem, ca: authority.certificatePem }
  return new RemoteBus({ url, tls, logger, handler, onConnect })
}

/** The fleet's MQTT on the port of HTTPS, for gateways that may open no other. */
function serveWebSocket(server: HttpServer, broker: FleetBroker): void {
  const sockets = new WebSocketServer({
    noServer: true,
    maxPayload: maxFrameBytes,
    perMessageDeflate: false,
    handleProtocols: (offered) => (offered.has('mqtt') ? 'mqtt' : false),
  })
  server.onUpgrade((request: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.on('error', () => {})
    // Nobody has shown a certificate yet, and what is thrown here ends the process.
    const url = URL.parse(request.url ?? '/', 'http://collector')
    if (!url) return socket.end('HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n')
    if (url.pathname !== fleetPath || !(socket instanceof TLSSocket))
      return socket.end('HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n')
    sockets.handleUpgrade(request, socket, head, (webSocket) => {
      broker.accept(createWebSocketStream(webSocket), socket)
    })
  })
}
