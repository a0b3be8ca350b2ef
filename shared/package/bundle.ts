import { join, relative } from 'node:path'
import { build, type Metafile, type Plugin } from 'esbuild'
import { root } from './paths.ts'

export interface BundleOptions {
  /** TypeScript file that starts the program. */
  entry: string
  /** CommonJS file to write. */
  output: string
  /** Files of `node_modules` that others stand in for, or that are left out. */
  substitutes: readonly Substitute[]
}

export interface Substitute {
  /** What is imported, as esbuild resolves it, below `node_modules`; `undici/index.js`. */
  module: string
  /** File that takes its place. */
  by: string
}

/** One file of everything that `entry` imports, for Node's single executable. Paths in the answer are relative to the project. */
export async function bundle({ entry, output, substitutes }: BundleOptions): Promise<Metafile> {
  const unused = new Set(substitutes.map(({ module }) => module))
  const { metafile } = await build({
    entryPoints: [entry],
    outfile: output,
    absWorkingDir: root,
    bundle: true,
    platform: 'node',
    // The only format that Node 24 takes out of an executable.
    format: 'cjs',
    target: 'node24',
    // Names stay: a stack trace from a gateway must say where it was.
    minifyWhitespace: true,
    minifySyntax: true,
    legalComments: 'none',
    metafile: true,
    logLevel: 'warning',
    plugins: [substitute(substitutes, (module) => unused.delete(module))],
  })
  // A library has moved its files, or is no longer needed: what stood in for it no longer does.
  if (unused.size > 0) throw new Error(`nothing imports ${[...unused].join(', ')}`)
  return metafile
}

function substitute(substitutes: readonly Substitute[], onUse: (module: string) => void): Plugin {
  return {
    name: 'substitute',
    setup({ onResolve, resolve }) {
      onResolve({ filter: /./ }, async ({ path, pluginData, kind, importer, resolveDir }) => {
        if (pluginData === 'resolved' || kind === 'entry-point') return undefined
        const found = await resolve(path, { kind, importer, resolveDir, pluginData: 'resolved' })
        // A missing module is esbuild's to judge: some libraries try one and go on without.
        if (found.errors.length > 0) return undefined
        const file = relative(join(root, 'node_modules'), found.path)
        const substitute = substitutes.find(({ module }) => module === file)
        // What stands in for a module may import that module.
        if (!substitute || substitute.by === importer) return found
        onUse(file)
        return { path: substitute.by }
      })
    },
  }
}
