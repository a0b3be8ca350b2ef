/** A machine that a packed program runs on. 32-bit ARM is none: there is no official current Node for it. */
export interface Target {
  arch: 'x64' | 'arm64'
  /** Debian's name of it. */
  debian: 'amd64' | 'arm64'
  /** Prefix of its cross tools. */
  triplet: string
}

export const targets: readonly Target[] = [
  { arch: 'x64', debian: 'amd64', triplet: 'x86_64-linux-gnu' },
  { arch: 'arm64', debian: 'arm64', triplet: 'aarch64-linux-gnu' },
]
