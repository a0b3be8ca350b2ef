import assert from 'node:assert/strict'
import { execFile, execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { root } from '../../shared/package/paths.ts'
import { needs } from '../support/needs.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { built, version } from './support/built.ts'
import { linkedTree } from './support/tree.ts'

const other = process.arch === 'x64' ? 'arm64' : 'x64'
const crossStrip = `${other === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu-strip`

/** Runs a `build.ts` to its end, into a folder of its own. */
function build(
  tree: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<{ code: number; stderr: string }> {
  const script = join(tree, 'agent/package/build.ts')
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      [script, ...args],
      { env: { SOURCE_DATE_EPOCH: '1767225600', ...env } },
      (error, _stdout, stderr) => resolve({ code: Number(error?.code ?? 0), stderr }),
    )
  })
}

/** A folder that holds these programs and no others. */
async function onlyTools(t: TestContext, ...names: string[]): Promise<string | undefined> {
  const folder = await temporaryDirectory(t)
  for (const name of names) {
    const path = needs(t, name)
    if (!path) return undefined
    symlinkSync(path, join(folder, name))
  }
  return folder
}

for (const [missing, target, ...present] of [
  ['strip', process.arch],
  [crossStrip, other, 'strip'],
  ['dpkg-deb', process.arch, 'strip'],
] as const)
  test(`a build without ${missing} names it, and what to install`, async (t) => {
    const PATH = await onlyTools(t, ...present)
    if (!PATH) return
    const out = await temporaryDirectory(t)
    const { code, stderr } = await build(root, ['--target', target, '--out', out], { PATH })
    assert.equal(code, 2)
    assert.match(stderr, new RegExp(`^package: ${missing} is missing: apt-get install \\S+\n$`))
  })

test('32-bit ARM is refused by name', async () => {
  const { code, stderr } = await build(root, ['--target', 'armhf'], {})
  assert.equal(code, 2)
  assert.match(stderr, /^package: no target armhf: 32-bit ARM has no official current Node/)
})

test('a package that was forced onto a 32-bit system says what it needs', async (t) => {
  const dpkg = needs(t, 'dpkg-deb')
  if (!dpkg) return
  const folder = await temporaryDirectory(t)
  const deb = built(`headgate-agent_${version}_arm64.deb`)
  execFileSync(dpkg, ['--control', deb, join(folder, 'control')])
  writeFileSync(join(folder, 'getconf'), '#!/bin/sh\necho 32\n', { mode: 0o755 })
  const preinst = join(folder, 'control/preinst')
  const on = (PATH: string) =>
    spawnSync('/bin/sh', [preinst, 'install'], { encoding: 'utf8', env: { PATH } })
  const { status, stderr } = on(`${folder}:/usr/bin:/bin`)
  assert.equal(status, 1)
  assert.match(stderr, /^headgate-agent: needs a 64-bit system/)
  assert.equal(on('/usr/bin:/bin').status, 0)
})

test('a Node for the other machine that is not the one in the lockfile is not packed', async (t) => {
  const npm = needs(t, 'npm')
  const strip = needs(t, crossStrip)
  if (!npm || !strip) return
  const name = `node-linux-${other}`
  const registry = await forgingRegistry(t, name)
  const tree = linkedTree(t)
  rmSync(join(tree, 'node_modules/.cache'), { recursive: true, force: true })
  const out = await temporaryDirectory(t)
  const { code, stderr } = await build(tree, ['--target', other, '--no-deb', '--out', out], {
    PATH: process.env.PATH,
    HOME: await temporaryDirectory(t),
    npm_config_registry: registry,
  })
  assert.match(stderr, new RegExp(`^package: ${name}@.* is not what package-lock.json says`))
  assert.equal(code, 1)
  assert.ok(!existsSync(join(out, `headgate-agent-linux-${other}`)))
})

/** A registry that is consistent in itself, and serves something else under the name. */
async function forgingRegistry(t: TestContext, name: string): Promise<string> {
  const { node: version } = process.versions
  const folder = await temporaryDirectory(t)
  mkdirSync(join(folder, 'package/bin'), { recursive: true })
  writeFileSync(join(folder, 'package/package.json'), JSON.stringify({ name, version }))
  writeFileSync(join(folder, 'package/bin/node'), 'not Node')
  execFileSync('tar', ['-czf', 'archive.tgz', 'package'], { cwd: folder })
  const archive = readFileSync(join(folder, 'archive.tgz'))
  const integrity = `sha512-${createHash('sha512').update(archive).digest('base64')}`
  const server = createServer(({ url }, response) => {
    if (url?.endsWith('.tgz')) return void response.end(archive)
    const tarball = `http://127.0.0.1:${port}/archive.tgz`
    response.end(
      JSON.stringify({
        name,
        'dist-tags': { latest: version },
        versions: { [version]: { name, version, dist: { tarball, integrity } } },
      }),
    )
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  t.after(() => server.close())
  const { port } = server.address() as AddressInfo
  return `http://127.0.0.1:${port}/`
}
