/** Where the nodes of a cluster live: loopback of this machine, or one network namespace each. */
export interface Site {
  /** Address of the n-th node. */
  host(node: number): string
  /** A program that runs the n-th node and becomes it. */
  through(node: number): readonly string[]
}

export const here: Site = { host: () => '127.0.0.1', through: () => [] }
