import { createHash } from 'node:crypto'
import {
  chmodSync,
  cpSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { root } from './paths.ts'
import { needTool, runTool } from './tool.ts'

export interface DebOptions {
  name: string
  version: string
  architecture: string
  summary: string
  /** Longer description: paragraphs of plain lines. */
  description: string
  /** What the package puts where. */
  tree: readonly TreeEntry[]
  /** Values for `@WORD@` in the maintainer scripts. */
  words: Record<string, string>
  /** An empty folder. */
  scratch: string
  epochS: number
  /** xz's level. */
  level: number
  output: string
}

export type TreeEntry = { path: string } & (
  | { file: string; mode?: number; conffile?: boolean }
  | { text: string; mode?: number; gzip?: boolean }
  | { link: string }
)

/** What the official Node binaries need: glibc 2.28, and a libstdc++ of GCC 7. */
const depends = [
  'libc6 (>= 2.28)',
  'libgcc-s1',
  'libstdc++6 (>= 7)',
  'passwd',
  'init-system-helpers',
]
const scripts = ['preinst', 'postinst', 'prerm', 'postrm']

/** Makes a Debian package, the same from the same sources wherever and by whomever it is built. */
export async function makeDeb(options: DebOptions): Promise<void> {
  const { scratch, epochS, level, output } = options
  const tree = join(scratch, 'tree')
  for (const entry of options.tree) place(tree, entry)
  const control = join(tree, 'DEBIAN')
  mkdirSync(control)
  const files = walk(tree).filter((path) => !path.startsWith('DEBIAN'))
  const sizeBytes = files.reduce((sum, path) => sum + lstatSync(join(tree, path)).size, 0)
  writeFileSync(join(control, 'control'), controlText(options, Math.ceil(sizeBytes / 1024)))
  const conffiles = options.tree
    .filter((entry) => 'conffile' in entry && entry.conffile)
    .map(({ path }) => path)
  writeFileSync(join(control, 'conffiles'), conffiles.map((path) => `/${path}\n`).join(''))
  const fixed = files.filter((path) => !conffiles.includes(path))
  writeFileSync(join(control, 'md5sums'), md5sums(tree, fixed))
  for (const script of scripts) {
    const text = readFileSync(join(root, 'shared/package/deb', script), 'utf8')
    const filled = text.replace(/@([A-Z]+)@/g, (_, word: string) => options.words[word]!)
    writeFileSync(join(control, script), filled)
  }
  for (const script of scripts) chmodSync(join(control, script), 0o755)
  settle(tree, epochS)
  await runTool(
    needTool('dpkg-deb'),
    ['--root-owner-group', '-Zxz', `-z${level}`, '--build', tree, output],
    { env: { SOURCE_DATE_EPOCH: String(epochS) } },
  )
}

function place(tree: string, entry: TreeEntry): void {
  const path = join(tree, entry.path)
  mkdirSync(dirname(path), { recursive: true })
  if ('link' in entry) symlinkSync(entry.link, path)
  else if ('file' in entry) cpSync(entry.file, path)
  else writeFileSync(path, entry.gzip ? gzipSync(entry.text, { level: 9 }) : entry.text)
  if (!('link' in entry)) chmodSync(path, entry.mode ?? 0o644)
}

function controlText(options: DebOptions, installedKiB: number): string {
  const { name, version, architecture, summary, description } = options
  const paragraphs = description
    .trim()
    .split('\n')
    .map((line) => ` ${line.trim() || '.'}`)
  return [
    `Package: ${name}`,
    // A release candidate sorts before its release.
    `Version: ${version.replace('-', '~')}`,
    `Architecture: ${architecture}`,
    'Maintainer: Headgate maintainers <maintainers@headgate.invalid>',
    `Installed-Size: ${installedKiB}`,
    `Depends: ${depends.join(', ')}`,
    'Recommends: systemd',
    'Section: net',
    'Priority: optional',
    `Description: ${summary}`,
    ...paragraphs,
    '',
  ].join('\n')
}

function md5sums(tree: string, files: readonly string[]): string {
  return files
    .filter((path) => lstatSync(join(tree, path)).isFile())
    .map((path) => {
      const sum = createHash('md5')
        .update(readFileSync(join(tree, path)))
        .digest('hex')
      return `${sum}  ${path}\n`
    })
    .join('')
}

/** Files and links below a folder, sorted. */
function walk(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((path) => !lstatSync(join(folder, path)).isDirectory())
    .sort()
}

/** Takes the builder's umask and clock out of a tree. */
function settle(tree: string, epochS: number): void {
  const paths = readdirSync(tree, { recursive: true, encoding: 'utf8' })
  // Deepest first: a change inside a folder would give it a new time.
  for (const path of ['', ...paths].sort().reverse()) {
    const whole = join(tree, path)
    if (lstatSync(whole).isDirectory()) chmodSync(whole, 0o755)
    lutimesSync(whole, epochS, epochS)
  }
}
