import mqttPacket from 'mqtt-packet'
import type { Watcher } from './fault-proxy.ts'

/** What passes between a subscriber and its broker, as a proxy between them sees it. */
export class MqttTap {
  /** Payloads that the subscriber has acknowledged, on the connection that delivered them. */
  readonly acknowledged = new Set<string>()
  /** Deliveries of each payload. */
  readonly deliveries = new Map<string, number>()

  /** For `FaultProxy.open`. */
  watch = (): Watcher => {
    const delivered = new Map<number, string>()
    const down = mqttPacket.parser({ protocolVersion: 4 })
    down.on('packet', (packet) => {
      if (packet.cmd !== 'publish' || packet.qos !== 1) return
      const payload = packet.payload.toString()
      delivered.set(packet.messageId!, payload)
      this.deliveries.set(payload, (this.deliveries.get(payload) ?? 0) + 1)
    })
    const up = mqttPacket.parser({ protocolVersion: 4 })
    up.on('packet', (packet) => {
      if (packet.cmd !== 'puback') return
      const payload = delivered.get(packet.messageId!)
      if (payload !== undefined) this.acknowledged.add(payload)
    })
    return {
      up: (bytes) => up.parse(Buffer.from(bytes)),
      down: (bytes) => down.parse(Buffer.from(bytes)),
    }
  }
}
