import { chmodSync, renameSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { basename, dirname, join } from 'node:path'
import { nodeBinary } from './node-binary.ts'
import type { Target } from './target.ts'
import { needTool, runTool } from './tool.ts'

/** Node looks for it in its own binary; postject turns its last digit. */
const sentinelFuse = 'NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2'

export interface ExecutableOptions {
  target: Target
  /** The bundle, CommonJS. */
  main: string
  /** Files that travel in it, by the name under which the program asks for them. */
  assets: Record<string, string>
  /** V8's and Node's flags. Neither NODE_OPTIONS nor the command line can add to them. */
  execArgv: readonly string[]
  /** An empty folder, on the disk of `output`. */
  scratch: string
  output: string
}

/** Makes one file of a bundle and the Node that runs it, for any target on any machine. */
export async function makeExecutable(options: ExecutableOptions): Promise<void> {
  const { target, main, assets, execArgv, scratch, output } = options
  const blob = join(scratch, 'program.blob')
  const config = join(scratch, 'sea-config.json')
  writeFileSync(
    config,
    JSON.stringify({
      main: basename(main),
      output: blob,
      assets,
      execArgv,
      execArgvExtension: 'none',
      disableExperimentalSEAWarning: true,
      // Both belong to one machine's V8, and the code cache differs from build to build.
      useSnapshot: false,
      useCodeCache: false,
    }),
  )
  // The name of `main` goes into the blob as it is given: stack traces show it.
  await runTool(process.execPath, ['--experimental-sea-config', config], { cwd: dirname(main) })
  const strip = target.arch === process.arch ? 'strip' : `${target.triplet}-strip`
  const stripped = join(scratch, 'node-stripped')
  // Before the blob goes in: strip would take it out again.
  await runTool(needTool(strip), ['-o', stripped, await nodeBinary(target, scratch)])
  // In a process of its own, since postject changes how its process takes errors.
  const postject = createRequire(import.meta.url).resolve('postject/dist/cli.js')
  await runTool(process.execPath, [
    postject,
    stripped,
    'NODE_SEA_BLOB',
    blob,
    '--sentinel-fuse',
    sentinelFuse,
  ])
  chmodSync(stripped, 0o755)
  // Not written over: the one that is there may be running.
  renameSync(stripped, output)
}
