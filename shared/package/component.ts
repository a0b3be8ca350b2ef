import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Metafile } from 'esbuild'
import { locked } from './lockfile.ts'
import { root } from './paths.ts'

/** A piece of software that is really in an executable. */
export interface Component {
  name: string
  version: string
  /** Package URL: where it comes from. */
  purl: string
  /** SPDX, as its own metadata names it; undefined where it travels under that of what it is part of. */
  licence?: string
  /** Hexadecimal, of the archive in the package registry. */
  sha512?: string
  /** Its folder, where its licence lies. */
  folder?: string
  /** purls of what it uses directly. */
  uses: string[]
  /** What it was built from. */
  parts: Component[]
}

/** C++ that classic-level's native part was built from, by its folder there. */
const nativeParts = {
  'classic-level': [
    {
      name: 'leveldb',
      version: '1.20',
      licence: 'BSD-3-Clause',
      folder: 'deps/leveldb/leveldb-1.20',
    },
    { name: 'snappy', version: '1.1.7', licence: 'BSD-3-Clause', folder: 'deps/snappy/snappy' },
  ],
} as const

/** Packages that have code in the bundle, by name. */
export function bundledComponents({ inputs, outputs }: Metafile): Component[] {
  const [output] = Object.values(outputs)
  const components = new Map<string, Component>()
  const of = (file: string): Component | undefined => {
    const folder = packageFolder(file)
    if (folder === undefined) return undefined
    const known = components.get(folder) ?? npmComponent(folder)
    components.set(folder, known)
    return known
  }
  for (const [file, { bytesInOutput }] of Object.entries(output!.inputs)) {
    if (bytesInOutput === 0) continue
    const user = of(file)
    for (const { path } of inputs[file]!.imports) {
      const used = output!.inputs[path]?.bytesInOutput ? of(path) : undefined
      if (user && used && used !== user && !user.uses.includes(used.purl)) user.uses.push(used.purl)
    }
  }
  return [...components.values()].sort((a, b) => (a.purl < b.purl ? -1 : 1))
}

/** Node itself, with the libraries that it was built from. */
export function nodeComponent(): Component {
  const { node, modules, napi, unicode, cldr, tz, ...libraries } = process.versions
  const folder = join(root, 'node_modules', `node-linux-${process.arch}`)
  return {
    name: 'node',
    version: node,
    purl: `pkg:generic/node@${node}`,
    licence: 'MIT',
    folder,
    uses: [],
    parts: Object.entries(libraries)
      .filter(([, version]) => version)
      .map(([name, version]) => ({
        name,
        version: version!,
        purl: `pkg:generic/${name}@${version}`,
        uses: [],
        parts: [],
      })),
  }
}

function npmComponent(folder: string): Component {
  const { name, license } = JSON.parse(
    readFileSync(join(root, folder, 'package.json'), 'utf8'),
  ) as { name: string; license: string }
  const { version, integrity } = locked(folder)
  const parts = nativeParts[name as keyof typeof nativeParts] ?? []
  return {
    name,
    version,
    purl: `pkg:npm/${name.replace('@', '%40')}@${version}`,
    licence: license,
    sha512: Buffer.from(integrity.replace(/^sha512-/, ''), 'base64').toString('hex'),
    folder: join(root, folder),
    uses: [],
    parts: parts.map((part) => ({
      ...part,
      purl: `pkg:generic/${part.name}@${part.version}`,
      folder: join(root, folder, part.folder),
      uses: [],
      parts: [],
    })),
  }
}

/** `node_modules/a/node_modules/@b/c/lib/d.js` → `node_modules/a/node_modules/@b/c`. */
function packageFolder(file: string): string | undefined {
  return /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/.exec(file)?.[0]
}

/** Packages that leave the licence out which their repository publishes with the others. */
const licencedAs: Readonly<Record<string, string>> = {
  '@aws-sdk/credential-provider-http': '@aws-sdk/core',
  '@aws-sdk/credential-provider-login': '@aws-sdk/core',
  '@aws-sdk/nested-clients': '@aws-sdk/core',
}

/**
 * Texts under which a component may be passed on.
 *
 * @throws Error when it brings none: then it must not be packed unseen
 */
export function licenceTexts(component: Component): string[] {
  const { name } = component
  if (component.folder === undefined) return []
  const folder = licencedAs[name] ? join(root, 'node_modules', licencedAs[name]) : component.folder
  const files = existsSync(folder) ? readdirSync(folder).sort() : []
  const textOf = (file: string) => readFileSync(join(folder, file), 'utf8').trim()
  const texts = files.filter((file) => /^(licen[cs]e|copying|notice)/i.test(file)).map(textOf)
  if (texts.length > 0) return texts
  const chapters = files
    .filter((file) => /^readme/i.test(file))
    .flatMap((file) => licenceChapter(textOf(file)) ?? [])
  if (chapters.length === 0) throw new Error(`${name} brings no licence: look at ${folder}`)
  return chapters
}

/** Some have their licence at the end of their manual only; a mere name is none. */
function licenceChapter(readme: string): string | undefined {
  const [, chapter] = /^#+ *licen[cs]e *$(.*)/ims.exec(readme) ?? []
  return chapter && /copyright/i.test(chapter) && /permission/i.test(chapter)
    ? chapter.trim()
    : undefined
}
