import mqttPacket from 'mqtt-packet'

// Otherwise the first packet makes a Buffer for each of 65,536 packet ids, and keeps them: 7 MB, of a gateway's
// memory, for the few packets that we do not write ourselves.
mqttPacket.writeToStream.cacheNumbers = false

export default mqttPacket
export type { IConnackPacket, Packet } from 'mqtt-packet'
