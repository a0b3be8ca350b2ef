import type { Seeded } from '../support/seeded.ts'
import type { FaultName } from './coverage.ts'
import type { Death } from './machine.ts'
import type { Network } from './network.ts'
import type { World } from './world.ts'

/** Sensors, each with a way of its own. */
export const devices = 5

const yearMs = 365.25 * 24 * 3600 * 1000

/**
 * What can be done to a world. `begin` starts it and may return what ends it; whatever is not ended by
 * itself ends when the world heals. Choices come from `seeded`, which is the fault's own, so that a fault
 * that is left out changes no other.
 */
export interface FaultKind {
  begin(world: World, seeded: Seeded): (() => void) | undefined
}

/** A request's trouble, at a seeded rate. */
function requests(name: FaultName): FaultKind {
  return {
    begin({ internet }, seeded) {
      internet.weather.trouble[name] = 0.3 + 0.7 * seeded.uniform()
      return () => {
        delete internet.weather.trouble[name]
      }
    },
  }
}

function weather(set: (network: Network, seeded: Seeded) => () => void): FaultKind {
  return {
    begin({ internet, plant }, seeded) {
      const networks = seeded.pick([[internet], [plant], [internet, plant]])
      const ends = networks.map((network) => set(network, seeded))
      return () => {
        for (const end of ends) end()
      }
    },
  }
}

function once(act: (world: World, seeded: Seeded) => void): FaultKind {
  return {
    begin(world, seeded) {
      act(world, seeded)
      return undefined
    },
  }
}

/** From at once to several seconds. */
const restartMs = (seeded: Seeded) => 20 * 400 ** seeded.uniform()

/** What can crash, and when it last began to write. */
interface Host {
  isUp: boolean
  crash(how: Death): void
  start(): void
  /** Calls back as the next write to disk begins. */
  onWrite(callback: () => void): void
  /** Calls back as the next name on its disk is made, moved or removed, where it has a disk of names. */
  onName?(callback: () => void): void
}

/** Crashes now, or in the middle of the next write, if there is one in time. */
function crash(
  how: Death,
  pick: (world: World, seeded: Seeded) => Host,
  name: FaultName,
): FaultKind {
  return {
    begin(world, seeded) {
      const { timeline, coverage } = world
      const host = pick(world, seeded)
      let struck = false
      const strike = () => {
        if (struck) return
        struck = true
        if (!host.isUp) return
        coverage.hit(name)
        host.crash(how)
        timeline.after(restartMs(seeded), () => host.start())
      }
      const soon = () => timeline.after(6 * seeded.uniform(), strike)
      if (seeded.chance(0.3)) strike()
      // Names are few, and in danger for a moment only.
      else if (how === 'power cut' && host.onName && seeded.chance(0.5)) host.onName(soon)
      else host.onWrite(soon)
      return strike
    },
  }
}

const agentCrash = (how: Death, name: FaultName) =>
  crash(how, ({ gateways }, seeded) => seeded.pick(gateways), name)
const collectorCrash = (how: Death, name: FaultName) =>
  crash(how, ({ collector }) => collector, name)
const collectorPowerCut = collectorCrash('power cut', 'collector power cut')

function brokerRestart(sessions: 'kept' | 'lost' | 'stale'): FaultKind {
  return {
    begin(world, seeded) {
      const { broker, gateways, timeline } = world
      // What is being committed now is acknowledged once the agent is connected again.
      const { trouble } = seeded.pick(gateways).store
      const isSlow = seeded.chance(0.3)
      if (isSlow) trouble.slowMs = 3_000
      timeline.after(10 * seeded.uniform(), () => {
        broker.stop(sessions)
        // Its ids begin anew behind those it has restored.
        if (sessions === 'stale') world.repeatsContent = false
        timeline.after(restartMs(seeded), () => broker.start())
      })
      const cancel = broker.onSubscribe(() => world.publish(seeded.below(devices), 2))
      return () => {
        cancel()
        if (isSlow) trouble.slowMs = 0
      }
    },
  }
}

function wallJump(direction: 1 | -1): FaultKind {
  return once(({ gateways, collector, coverage }, seeded) => {
    const machine = seeded.pick([...gateways, collector]).machine
    machine.jumpWall(direction * Math.floor(seeded.uniform() * 40 * yearMs))
    coverage.hit(direction > 0 ? 'wall clock forward' : 'wall clock back')
  })
}

/** Damage is found at open, so the agent is made to open it. */
function storeFlip(flip: 'flipLog' | 'flipValue'): FaultKind {
  return once((world, seeded) => {
    const gateway = seeded.pick(world.gateways)
    if (!gateway.isUp || !gateway.store[flip]()) return
    world.excuses.storeDamaged = true
    world.forgetMarks()
    world.forgetReductions()
    gateway.crash('killed')
    gateway.start()
  })
}

export const faultKinds = {
  'disk full': {
    begin({ collector: { disk } }) {
      disk.trouble.full = true
      return () => {
        disk.trouble.full = false
      }
    },
  },
  'disk write errors': diskTrouble('eioWrite'),
  'disk sync errors': {
    begin(world, seeded) {
      const heal = diskTrouble('eioSync').begin(world, seeded)!
      // A disk that fails takes the machine with it now and then, and what a sync has lost shows only then.
      const takesMachine = seeded.chance(0.5)
      return () => {
        heal()
        if (takesMachine) collectorPowerCut.begin(world, seeded)?.()
      }
    },
  },
  'disk short writes': diskTrouble('shortWrite'),
  'disk slow': slow(({ collector: { disk } }) => disk.trouble),
  'disk bit flip': once(({ damageLog }) => damageLog()),
  'store full': {
    begin({ gateways }, seeded) {
      const { store } = seeded.pick(gateways)
      store.trouble.full = true
      return () => {
        store.trouble.full = false
      }
    },
  },
  'store write errors': storeTrouble('eioWrite'),
  'store sync errors': storeTrouble('eioSync'),
  'store slow': slow(({ gateways }, seeded) => seeded.pick(gateways).store.trouble),
  'store log flip': storeFlip('flipLog'),
  'store value flip': storeFlip('flipValue'),
  delay: weather((network, seeded) => {
    network.weather.delayMs = seeded.pick([50, 500, 5_000])
    return () => {
      network.weather.delayMs = 0
    }
  }),
  partition: weather((network) => {
    network.weather.partitioned = true
    return () => network.endPartition()
  }),
  'requests dropped': requests('drop'),
  'requests duplicated': requests('duplicate'),
  'requests reordered': requests('reorder across connections'),
  'requests half-open': requests('half-open'),
  'responses lost': requests('response lost after commit'),
  'bodies truncated': requests('body truncated'),
  'answers 429': requests('429'),
  'answers 503': requests('503'),
  'requests hang': requests('hang'),
  'connects hang': {
    begin({ plant }) {
      plant.weather.trouble.hang = 1
      return () => {
        delete plant.weather.trouble.hang
      }
    },
  },
  'connection reset': once(({ broker, coverage }) => {
    if (broker.disturb('reset')) coverage.hit('drop')
  }),
  'connection half-open': once(({ broker, coverage }) => {
    if (broker.disturb('vanish')) coverage.hit('half-open')
  }),
  'broker restart with session': brokerRestart('kept'),
  'broker restart with old session': brokerRestart('stale'),
  'broker restart without session': brokerRestart('lost'),
  'duplicate PUBLISH': {
    begin({ broker }, seeded) {
      broker.stutters = 0.3 + 0.7 * seeded.uniform()
      return () => {
        broker.stutters = 0
      }
    },
  },
  'more in flight': {
    begin({ broker }) {
      broker.floods = true
      return () => {
        broker.floods = false
      }
    },
  },
  'agent killed': agentCrash('killed', 'agent crash'),
  'agent power cut': agentCrash('power cut', 'agent power cut'),
  'collector killed': collectorCrash('killed', 'collector crash'),
  'collector power cut': collectorPowerCut,
  'both crash': once((world, seeded) => {
    const { gateways, collector, timeline, coverage } = world
    coverage.hit('both crash')
    for (const host of [gateways[0]!, collector]) {
      host.crash(seeded.pick(['killed', 'power cut'] as const))
      timeline.after(restartMs(seeded), () => host.start())
    }
  }),
  'wall clock forward': wallJump(1),
  'wall clock back': wallJump(-1),
  'wall clock frozen': {
    begin({ gateways, collector, coverage }, seeded) {
      const { machine } = seeded.pick([...gateways, collector])
      machine.freezeWall()
      coverage.hit('wall clock frozen')
      return () => machine.thawWall()
    },
  },
  'agent image restored': {
    begin(world) {
      const gateway = world.gateways[0]!
      const image = world.imageOf(gateway)
      return () => world.restoreGateway(gateway, image)
    },
  },
  clone: once((world) => world.clone()),
  fork: once((world) => world.fork()),
  'collector image restored': {
    begin(world) {
      const { collector } = world
      const image = collector.disk.image()
      return () => world.restoreCollector(collector, image)
    },
  },
  'collector moved': once((world) => world.moveCollector()),
} satisfies Record<string, FaultKind>

export type FaultKindName = keyof typeof faultKinds

function diskTrouble(which: 'eioWrite' | 'eioSync' | 'shortWrite'): FaultKind {
  return {
    begin({ collector: { disk } }, seeded) {
      disk.trouble[which] = 0.1 + 0.6 * seeded.uniform()
      return () => {
        disk.trouble[which] = 0
      }
    },
  }
}

function storeTrouble(which: 'eioWrite' | 'eioSync'): FaultKind {
  return {
    begin({ gateways }, seeded) {
      const { store } = seeded.pick(gateways)
      store.trouble[which] = 0.1 + 0.6 * seeded.uniform()
      return () => {
        store.trouble[which] = 0
      }
    },
  }
}

/** Whatever a sync falls into happens in the middle of it. */
function slow(of: (world: World, seeded: Seeded) => { slowMs: number }): FaultKind {
  return {
    begin(world, seeded) {
      const trouble = of(world, seeded)
      trouble.slowMs = seeded.pick([50, 500, 3_000])
      return () => {
        trouble.slowMs = 0
      }
    },
  }
}
