import type { Component } from './component.ts'

/**
 * CycloneDX 1.6 JSON of what is in an executable (https://cyclonedx.org/docs/1.6/json/). It holds nothing
 * that differs from one build of the same sources to the next.
 *
 * @param epochS time of the build, Unix seconds
 */
export function sbom(
  program: { name: string; version: string; summary: string },
  components: readonly Component[],
  epochS: number,
): string {
  const { name, version, summary } = program
  const purl = `pkg:generic/${name}@${version}`
  const document = {
    bomFormat: 'CycloneDX',
    specVersion: '1.6',
    version: 1,
    metadata: {
      timestamp: new Date(epochS * 1000).toISOString().replace('.000Z', 'Z'),
      component: {
        type: 'application',
        'bom-ref': purl,
        name,
        version,
        description: summary,
        licenses: [{ license: { id: 'Apache-2.0' } }],
        purl,
      },
    },
    components: components.map(describe),
    dependencies: [
      { ref: purl, dependsOn: components.map((component) => component.purl) },
      ...components.map(({ purl: ref, uses, parts }) => ({
        ref,
        dependsOn: [...uses, ...parts.map((part) => part.purl)].sort(),
      })),
    ],
  }
  return `${JSON.stringify(document, null, 2)}\n`
}

function describe({ name, version, purl, licence, sha512, parts }: Component): object {
  return {
    type: name === 'node' ? 'platform' : 'library',
    'bom-ref': purl,
    name,
    version,
    ...(sha512 && { hashes: [{ alg: 'SHA-512', content: sha512 }] }),
    ...(licence && { licenses: [{ license: { id: licence } }] }),
    purl,
    ...(parts.length > 0 && { components: parts.map(describe) }),
  }
}
