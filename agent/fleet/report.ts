import type { Problem } from '../../shared/config.ts'
import { type AgentReport, maxReportBytes } from '../../shared/fleet/reports.ts'
import { lanes } from '../../shared/reading.ts'
import { formatTime } from '../../shared/time-text.ts'
import type { AgentStatus } from '../agent.ts'
import type { AgentConfig } from '../config.ts'

/** Entries of a list that go into a bundle. */
const maxListed = 50
/** Of the problems in a message; each is cut well below what a collector takes. */
const maxProblems = 100
const maxTextLength = 1_000
const maxProblemBytes = maxReportBytes / 2

/** What is told on `status`. */
export function report(options: {
  agent: string
  /** Undefined while the store is being opened. */
  status: AgentStatus | undefined
  versions: { headgate: string; node: string; config: number }
  uptimeS: number
  nowMs: number
  clockOffsetMs: number | undefined
}): AgentReport {
  const { agent, status, versions, uptimeS, nowMs, clockOffsetMs } = options
  return {
    agent,
    online: true,
    at: formatTime(nowMs),
    versions,
    uptimeS: Math.round(uptimeS),
    clockOffsetMs: clockOffsetMs ?? null,
    ...(status && {
      ledger: { ...status.ledger },
      buffer: bufferOf(status, nowMs),
      source: status.source.phase,
      uplink: status.uplink.lastFailure === undefined ? status.uplink.state.phase : 'failing',
      paused: status.paused,
    }),
  }
}

function bufferOf(status: AgentStatus, nowMs: number) {
  const oldestMs = Math.min(...lanes.map((lane) => status.lanes[lane].oldestMs ?? Infinity))
  return {
    bytes: lanes.reduce((sum, lane) => sum + status.lanes[lane].bytes, 0),
    readings: status.ledger.buffered,
    oldestAgeS: oldestMs === Infinity ? null : Math.max(0, Math.round((nowMs - oldestMs) / 1_000)),
  }
}

/** The gateway's own configuration without anything that opens a door. */
export function redacted({ enrol: _, source, uplink, fleet, ...config }: AgentConfig): object {
  const { password, ...shown } = source
  return {
    ...config,
    source: {
      ...shown,
      url: withoutUser(source.url),
      ...(password !== undefined && { password: '(set)' }),
    },
    uplink: {
      ...uplink,
      url: withoutUser(uplink.url),
      ...(uplink.proxy && { proxy: withoutUser(uplink.proxy) }),
    },
    fleet: { ...fleet, ...(fleet.proxy && { proxy: withoutUser(fleet.proxy) }) },
  }
}

/** Problems that fit into a message: so many of the first, each cut to a length that is taken. */
export function tellable(problems: readonly Problem[]): Problem[] {
  const told: Problem[] = []
  let bytes = 0
  for (const { path, message } of problems.slice(0, maxProblems)) {
    const problem = { path: path.slice(0, maxTextLength), message: message.slice(0, maxTextLength) }
    bytes += Buffer.byteLength(JSON.stringify(problem)) + 1
    if (bytes > maxProblemBytes) break
    told.push(problem)
  }
  return told
}

/** A status that fits into a message. */
export function shortened(status: AgentStatus | undefined): object | undefined {
  if (!status) return undefined
  const { source, unmatchedTopics, ...rest } = status
  return {
    ...rest,
    unmatchedTopics: unmatchedTopics.slice(0, maxListed),
    source: { ...source, topics: source.topics.slice(0, maxListed) },
  }
}

function withoutUser(url: string): string {
  return url.replace(/^([a-z0-9+.-]+:\/\/)[^/@]*@/i, '$1')
}
