/**
 * The proxy that the environment asks for on the way to an https address: `HTTPS_PROXY`, unless `NO_PROXY`
 * names the host (or a domain above it, or `*`).
 */
export function proxyFor(
  url: string,
  environment: Readonly<Record<string, string | undefined>>,
): string | undefined {
  const { hostname, host, protocol } = new URL(url)
  if (protocol !== 'https:' && protocol !== 'wss:') return undefined
  const proxy = environment.HTTPS_PROXY || environment.https_proxy
  if (!proxy) return undefined
  const exempt = (environment.NO_PROXY || environment.no_proxy || '').toLowerCase().split(/[\s,]+/)
  const name = hostname.replace(/^\[|\]$/g, '').toLowerCase()
  for (const entry of exempt) {
    if (entry === '') continue
    const domain = entry.replace(/^\*?\./, '')
    if (entry === '*' || entry === host || domain === name || name.endsWith(`.${domain}`))
      return undefined
  }
  return proxy.includes('://') ? proxy : `http://${proxy}`
}
