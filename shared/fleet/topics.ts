/**
 * Names of agents, commands and groups, and the MQTT topics made of them. Everything of an agent is under
 * `headgate/v1/<agent>/`, so that a broker's rule can be as simple as that.
 */
export const topicRoot = 'headgate/v1'

const name = /^[A-Za-z0-9_-]{1,64}$/

/** Whether it names an agent; so no `/`, `+`, `#` or NUL ever gets into a topic. */
export function isAgentName(text: string): boolean {
  return name.test(text)
}

/** Whether it can be the id of a command. */
export function isCommandId(text: string): boolean {
  return name.test(text)
}

/** The topics of one agent. @throws RangeError on a name that is none */
export function topicsOf(agent: string) {
  if (!isAgentName(agent)) throw new RangeError(`no name of an agent: ${JSON.stringify(agent)}`)
  const base = `${topicRoot}/${agent}`
  return {
    /** Retained, manager to agent: a signed configuration. */
    desired: `${base}/config/desired`,
    /** Retained, agent to manager: what runs, as JSON. */
    reported: `${base}/config/reported`,
    /** Retained, and the agent's last will: JSON. */
    status: `${base}/status`,
    /** Filter of all commands to it. */
    commands: `${base}/command/+`,
    /** Manager to agent: a signed command. */
    command: (id: string) => `${base}/command/${checked(id)}`,
    /** Agent to manager: what came of it, as JSON. */
    result: (id: string) => `${base}/result/${checked(id)}`,
  }
}

export type FleetTopic =
  | { agent: string; kind: 'desired' | 'reported' | 'status' }
  | { agent: string; kind: 'command' | 'result'; id: string }

/** Whose topic it is and which; undefined for any other topic. */
export function parseFleetTopic(topic: string): FleetTopic | undefined {
  const [root, version, agent = '', kind, last = '', ...rest] = topic.split('/')
  if (`${root}/${version}` !== topicRoot || rest.length > 0 || !isAgentName(agent)) return undefined
  if (kind === 'status') return topic.endsWith('/status') ? { agent, kind } : undefined
  if (kind === 'config' && (last === 'desired' || last === 'reported')) return { agent, kind: last }
  if ((kind === 'command' || kind === 'result') && isCommandId(last))
    return { agent, kind, id: last }
  return undefined
}

function checked(id: string): string {
  if (!isCommandId(id)) throw new RangeError(`no id of a command: ${JSON.stringify(id)}`)
  return id
}
