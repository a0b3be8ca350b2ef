import { createHash } from 'node:crypto'
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import manifest from '../../package.json' with { type: 'json' }
import { UserError } from '../failure.ts'
import { bundle, type Substitute } from './bundle.ts'
import { bundledComponents, nodeComponent } from './component.ts'
import { makeDeb, type TreeEntry } from './deb.ts'
import { sourceEpochS } from './epoch.ts'
import { makeExecutable } from './executable.ts'
import { licences } from './licences.ts'
import { root } from './paths.ts'
import { sbom } from './sbom.ts'
import { type Target, targets } from './target.ts'

/** A program as it is packed. Its folder holds `entry.ts`, `<part>.yaml`, `<name>.service` and `<name>.1`. */
export interface Program {
  /** `headgate-agent` */
  name: string
  /** `agent`: its part of `headgate`, and the name of its configuration and data. */
  part: string
  /** One line, without a full stop. */
  summary: string
  description: string
  folder: string
  /** Pages of `docs/` that its package brings. */
  documents: readonly string[]
  substitutes: readonly Substitute[]
  /** V8's and Node's flags. */
  execArgv: readonly string[]
  /** Native parts, by the name of their file; the bundle asks for them and for `<name>.sha256`. */
  addons(target: Target): Record<string, string>
}

const usage = `usage: node <program>/package/build.ts [--out DIR] [--target x64|arm64 ...] [--no-deb] [--level 0-9]
  --out     folder for what is made (default: dist)
  --target  only this machine (default: all)
  --no-deb  only the executables
  --level   xz's level for the packages (default: 6)`

/** Runs a program's `build.ts`: makes all that it names and says what it made; a problem is one line. */
export async function packageProgram(program: Program): Promise<void> {
  try {
    const options = readOptions()
    mkdirSync(options.out, { recursive: true })
    const scratch = mkdtempSync(join(options.out, '.package-'))
    try {
      await makeAll(program, options, scratch)
    } finally {
      rmSync(scratch, { recursive: true, force: true })
    }
    writeSums(options.out)
  } catch (error) {
    if (!(error instanceof UserError)) throw error
    process.stderr.write(`package: ${error.message}\n`)
    process.exitCode = error.exitCode
  }
}

interface Options {
  out: string
  targets: readonly Target[]
  deb: boolean
  level: number
}

function readOptions(): Options {
  try {
    const { values } = parseArgs({
      options: {
        out: { type: 'string', default: join(root, 'dist') },
        target: { type: 'string', multiple: true },
        'no-deb': { type: 'boolean', default: false },
        level: { type: 'string', default: '6' },
      },
    })
    const wanted = values.target ?? targets.map(({ arch }) => arch)
    return {
      out: values.out,
      targets: wanted.map((arch) => {
        const target = targets.find((known) => known.arch === arch)
        if (!target) throw new Error(`no target ${arch}: 32-bit ARM has no official current Node`)
        return target
      }),
      deb: !values['no-deb'],
      level: Number(values.level),
    }
  } catch (cause) {
    throw new UserError(`${(cause as Error).message}\n${usage}`, { exitCode: 2, cause })
  }
}

async function makeAll(program: Program, options: Options, scratch: string): Promise<void> {
  const { name, folder, summary } = program
  const { version } = manifest
  const epochS = await sourceEpochS()
  const main = join(scratch, `${name}.cjs`)
  const metafile = await bundle({
    entry: join(folder, 'entry.ts'),
    output: main,
    substitutes: program.substitutes,
  })
  const components = [nodeComponent(), ...bundledComponents(metafile)]
  const papers: Papers = {
    sbom: sbom({ name, version, summary }, components, epochS),
    licences: licences(name, components),
  }
  writeFileSync(join(options.out, `${name}.cdx.json`), papers.sbom)
  writeFileSync(join(options.out, `${name}.licences.txt`), papers.licences)
  // At the same time: compressing takes one core for each.
  await Promise.all(
    options.targets.map((target) =>
      makeFor(target, { program, options, main, papers, epochS, scratch }),
    ),
  )
}

interface Making {
  program: Program
  options: Options
  /** The bundle. */
  main: string
  papers: Papers
  epochS: number
  scratch: string
}

async function makeFor(target: Target, making: Making): Promise<void> {
  const { program, options, main, papers, epochS } = making
  const { name, summary, description } = program
  const { version } = manifest
  const scratch = join(making.scratch, target.arch)
  mkdirSync(scratch)
  const executable = join(options.out, `${name}-linux-${target.arch}`)
  await makeExecutable({
    target,
    main,
    assets: withSums(program.addons(target), scratch),
    execArgv: program.execArgv,
    scratch,
    output: executable,
  })
  say(executable)
  if (!options.deb) return
  const deb = `${name}_${version}_${target.debian}.deb`
  await makeDeb({
    name,
    version,
    architecture: target.debian,
    summary,
    description,
    tree: layOut(program, target, executable, papers),
    words: { NAME: name, PART: program.part },
    scratch,
    epochS,
    level: options.level,
    output: join(scratch, deb),
  })
  // Under its name only once it is whole: a build may be stopped.
  renameSync(join(scratch, deb), join(options.out, deb))
  say(join(options.out, deb))
}

interface Papers {
  sbom: string
  licences: string
}

/** What a package puts where. */
function layOut(program: Program, target: Target, executable: string, papers: Papers): TreeEntry[] {
  const { name, part, folder } = program
  const private_ = `usr/lib/${name}`
  const documents = `usr/share/doc/${name}`
  return [
    { path: `${private_}/${name}`, file: executable, mode: 0o755 },
    ...Object.entries(program.addons(target)).map(([addon, file]) => ({
      path: `${private_}/${addon}`,
      file,
    })),
    { path: `usr/bin/${name}`, link: `../lib/${name}/${name}` },
    { path: `${private_}/back-off`, file: join(root, 'shared/package/deb/back-off'), mode: 0o755 },
    { path: `usr/lib/systemd/system/${name}.service`, file: join(folder, `${name}.service`) },
    { path: `etc/headgate/${part}.yaml`, file: join(folder, `${part}.yaml`), conffile: true },
    {
      path: `usr/share/man/man1/${name}.1.gz`,
      text: readFileSync(join(folder, `${name}.1`), 'utf8'),
      gzip: true,
    },
    { path: `${documents}/copyright`, text: papers.licences },
    ...program.documents.map((page) => ({
      path: `${documents}/${page}`,
      file: join(root, 'docs', page),
    })),
    { path: `${documents}/sbom.cdx.json`, text: papers.sbom },
  ]
}

/** Each file with its checksum beside it, so that a program can tell a damaged one. */
function withSums(files: Record<string, string>, scratch: string): Record<string, string> {
  const assets: Record<string, string> = {}
  for (const [name, file] of Object.entries(files)) {
    const sum = join(scratch, `${name}.sha256`)
    writeFileSync(sum, sha256(file))
    assets[name] = file
    assets[`${name}.sha256`] = sum
  }
  return assets
}

/** `sha256sum -c SHA256SUMS` checks what was copied. */
function writeSums(out: string): void {
  const files = readdirSync(out, { withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.startsWith('headgate-'))
    .map(({ name }) => name)
    .sort()
  const lines = files.map((name) => `${sha256(join(out, name))}  ${name}\n`)
  writeFileSync(join(out, 'SHA256SUMS'), lines.join(''))
}

function sha256(file: string): string {
  return createHash('sha256').update(readFileSync(file)).digest('hex')
}

function say(file: string): void {
  const megabytes = (readFileSync(file).length / 1e6).toFixed(1)
  process.stdout.write(`${file} ${megabytes} MB\n`)
}
