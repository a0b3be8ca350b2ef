import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFile, rm, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { promisify } from 'node:util'
import { cleanUp } from './clean-up.ts'
import { needs } from './needs.ts'
import { temporaryDirectory } from './temporary.ts'

const run = promisify(execFile)

/** Mounting takes root; elsewhere the test is skipped, and says so. */
function mayMount(t: TestContext): boolean {
  if (process.getuid?.() === 0) return true
  t.skip('needs root, to mount a file system')
  return false
}

/** A file system of a few megabytes, to be filled and freed. */
export class SmallDisk {
  readonly directory: string
  readonly #ballast: string

  private constructor(directory: string) {
    this.directory = directory
    this.#ballast = join(directory, 'ballast')
  }

  /** Undefined where it cannot be had and the test was skipped. */
  static async make(t: TestContext, megabytes: number): Promise<SmallDisk | undefined> {
    if (!mayMount(t)) return undefined
    const directory = await temporaryDirectory(t)
    await run('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m`, 'tmpfs', directory])
    cleanUp(t, () => run('umount', ['--lazy', directory]))
    return new SmallDisk(directory)
  }

  /** Takes all room but so much, beside somebody who takes some too. */
  async fill(leaveBytes: number): Promise<void> {
    const { bavail, bsize } = await statfs(this.directory)
    const bytes = Buffer.alloc(Math.max(0, bavail * bsize - leaveBytes))
    await appendFile(this.#ballast, bytes).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOSPC') throw error
    })
  }

  async free(): Promise<void> {
    await rm(this.#ballast, { force: true })
  }
}

/** FS_IOC_SHUTDOWN, and its flag for a journal that is not flushed first (linux/fs.h, fs/ext4/ext4.h). */
const shutdown = `
import fcntl, os, struct, sys
disk = os.open(sys.argv[1], os.O_RDONLY)
print(flush=True)
sys.stdin.read(1)
fcntl.ioctl(disk, 0x8004587D, struct.pack("I", 2))
`

/** An ext4 of its own of which the power can be cut: what was not synced by then is gone. */
export class CuttableDisk {
  readonly directory: string
  readonly #image: string
  readonly #python: string

  private constructor(directory: string, image: string, python: string) {
    this.directory = directory
    this.#image = image
    this.#python = python
  }

  static async make(t: TestContext, megabytes: number): Promise<CuttableDisk | undefined> {
    if (!mayMount(t)) return undefined
    const mkfs = needs(t, 'mkfs.ext4')
    const python = needs(t, 'python3')
    if (!mkfs || !python) return undefined
    const image = join(await temporaryDirectory(t), 'disk.img')
    const disk = new CuttableDisk(await temporaryDirectory(t), image, python)
    await run('truncate', ['-s', `${megabytes}M`, image])
    await run(mkfs, ['-q', '-F', image])
    await disk.#mount()
    cleanUp(t, () => run('umount', ['--lazy', disk.directory]))
    return disk
  }

  /**
   * Cuts it: what was not synced never reaches the image. `halt` stops whoever uses it in the same moment,
   * for with its power gone no machine sends anything more. (One that ran on would be told of success by
   * an fdatasync that the cut fell into: ext4 does not report an extent that it could not convert.)
   */
  async cut(halt: () => void): Promise<void> {
    const python = spawn(this.#python, ['-c', shutdown, this.directory], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    const exit = once(python, 'exit')
    await once(python.stdout, 'data')
    halt()
    python.stdin.end('.')
    const [code] = await exit
    if (code !== 0) throw new Error('the file system cannot be shut down')
  }

  /** The disk as it is found after the cut; nobody may use it any more. */
  async restore(): Promise<void> {
    await run('umount', [this.directory])
    await this.#mount()
  }

  async #mount(): Promise<void> {
    await run('mount', ['-o', 'loop', this.#image, this.directory])
  }
}
