import { imbalance, ledgerWords } from '../shared/ledger.ts'
import { lanes } from '../shared/reading.ts'
import type { AgentStatus } from './agent.ts'
import type { FleetStatus } from './fleet/fleet.ts'

/** The running agent's state for a person. */
export function printStatus(status: AgentStatus & { fleet?: FleetStatus }): string {
  const { ledger, totals, source, uplink } = status
  const lines = [
    `agent ${status.agent}`,
    `source   ${source.phase}${source.lastError ? `, last trouble ${trouble(source.lastError)}` : ''}`,
    `uplink   ${uplink.state.phase}${uplink.lastFailure ? `: ${uplink.lastFailure}` : ''}`,
    ...fleetLines(status.fleet),
    ...lanes.map((lane) => {
      const { sequences, bytes, oldestMs } = status.lanes[lane]
      const oldest = oldestMs === undefined ? '' : `, oldest ${new Date(oldestMs).toISOString()}`
      return `${lane.padEnd(11)}${sequences} waiting, ${bytes} bytes${oldest}`
    }),
    ...tailLine(status.tail),
    `on the wire ${onTheWire(totals.wire)}`,
    ...filterLine(status.filter),
    'ledger',
    ...ledgerWords.map((word) => `  ${word.padEnd(13)}${ledger[word]}`),
    imbalance(ledger) === 0 ? '  balanced' : `  OUT OF BALANCE by ${imbalance(ledger)}`,
    'topics, last message',
    ...source.topics.map(({ topic, lastMs }) => `  ${new Date(lastMs).toISOString()}  ${topic}`),
  ]
  if (status.unmatchedTopics.length > 0)
    lines.push(
      'topics that no rule decodes',
      ...status.unmatchedTopics.map(
        ({ topic, count }) => `  ${String(count).padStart(8)}  ${topic}`,
      ),
    )
  return `${lines.join('\n')}\n`
}

function fleetLines(fleet: FleetStatus | undefined): string[] {
  if (!fleet) return []
  const { phase, trouble: why, version, since, state, desired, problems } = fleet
  const about =
    desired === version || state === 'none' ? state : `${desired ?? 'a message'} ${state}`
  const runs = version === 0 ? 'its own file' : `version ${version}`
  return [
    `fleet    ${phase}${phase !== 'connected' && why ? `: ${why}` : ''}`,
    `config   ${runs} since ${since}, ${about}`,
    ...problems.map(({ path, message }) => `  ${path ? `${path}: ` : ''}${message}`),
  ]
}

function tailLine(tail: AgentStatus['tail']): string[] {
  if (!tail) return []
  const oldest = tail.oldestMs === null ? '' : `, oldest ${new Date(tail.oldestMs).toISOString()}`
  return [`tail       ${tail.readings} raw readings, ${tail.bytes} bytes${oldest}`]
}

/** Nothing where no rule has anything to do. */
function filterLine({ series, beyondMaxSeries, late }: AgentStatus['filter']): string[] {
  if (series === 0) return []
  const more =
    (beyondMaxSeries > 0 ? `, ${beyondMaxSeries} readings passed beyond maxSeries` : '') +
    (late > 0 ? `, ${late} came behind their window` : '')
  return [`filter      ${series} series${more}`]
}

function trouble({ message, atMs }: NonNullable<AgentStatus['source']['lastError']>): string {
  return `${new Date(atMs).toISOString()}: ${message}`
}

function onTheWire({ day, dayBytes, month, monthBytes }: AgentStatus['totals']['wire']): string {
  return day ? `${dayBytes} bytes on ${day}, ${monthBytes} in ${month}` : 'nothing yet'
}
