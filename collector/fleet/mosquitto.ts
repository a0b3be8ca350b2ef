import { topicRoot } from '../../shared/fleet/topics.ts'

/** Files of a stock mosquitto that serves as a fleet's broker, by name. */
export interface MosquittoFiles {
  'headgate.conf': string
  'headgate.acl': string
}

/**
 * The rules of the built-in broker (`mayPublish`, `maySubscribe` in `broker.ts`) as mosquitto reads them:
 * names come from certificates, and so do client ids, so that nobody puts another out.
 *
 * @param managers common names, `manager:alice`
 */
export function mosquittoFiles(
  folder: string,
  port: number,
  managers: readonly string[],
): MosquittoFiles {
  const configuration = `# Fleet broker for Headgate, from \`headgate fleet acl\`; mosquitto 2.0 or later.
listener ${port}
cafile ${folder}/ca.pem
certfile ${folder}/server.pem
keyfile ${folder}/server-key.pem
crlfile ${folder}/crl.pem
require_certificate true
use_identity_as_username true
use_username_as_clientid true
allow_anonymous false
acl_file ${folder}/headgate.acl
message_size_limit 270000
persistence true
persistence_location ${folder}/data/
`
  const everybody = `pattern read ${topicRoot}/%u/#
pattern write ${topicRoot}/%u/config/reported
pattern write ${topicRoot}/%u/status
pattern write ${topicRoot}/%u/result/+
`
  const ofManager = (commonName: string) => `
user ${commonName}
topic read ${topicRoot}/#
topic write ${topicRoot}/+/config/desired
topic write ${topicRoot}/+/command/+
`
  // The collector takes back what a revoked agent has left behind, too.
  const ofCollector = `
user collector:fleet
topic read ${topicRoot}/#
topic write ${topicRoot}/#
`
  return {
    'headgate.conf': configuration,
    'headgate.acl': `# An agent, by the name in its certificate.\n${everybody}${managers.map(ofManager).join('')}${ofCollector}`,
  }
}
