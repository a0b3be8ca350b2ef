import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Component, licenceTexts } from './component.ts'
import { root } from './paths.ts'

/** Our licence and those of everything that is in an executable, as one text. */
export function licences(program: string, components: readonly Component[]): string {
  const rule = '='.repeat(80)
  const sections = components
    .flatMap((component) => [component, ...component.parts.filter(({ folder }) => folder)])
    .map(
      ({ name, version, licence, ...rest }) =>
        `${rule}\n${name} ${version} (${licence})\n${rule}\n\n` +
        licenceTexts({ name, version, ...rest }).join('\n\n'),
    )
  const own = readFileSync(join(root, 'LICENSE'), 'utf8').trim()
  return [
    `${program} is licensed under the Apache License 2.0, which stands first. What follows it are the\n` +
      'licences of the software that it contains.',
    own,
    ...sections,
    '',
  ].join('\n\n')
}
