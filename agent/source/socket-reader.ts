import type { OnReadOpts, Socket } from 'node:net'

/** Read into until it is nearly full: messages are views into it, and many small reads share one. */
const slabBytes = 64 * 1024
/** With less room than this left, the next read gets a slab of its own. */
const leastBytes = 16 * 1024
/** A read that brings less is hardly worth its system call … */
const littleBytes = 8 * 1024
/** … when it comes so soon after the one before, ms … */
const soonMs = 1
/** … and so often in a row. What a small window lets the broker send comes in fewer pieces. */
const patience = 8
/** How long the socket is left alone then: little beside what messages wait for company. */
const usualNapMs = 2

/**
 * Reads a socket in large pieces. Brokers write each message by itself, and at tens of thousands a second
 * to be woken for each costs more than everything that is done with it. So where small pieces come one upon
 * the other the socket is left alone for a moment, and what came meanwhile is read at once.
 */
export class SocketReader {
  /** For the socket's options. */
  readonly onread: OnReadOpts
  readonly #take: (bytes: Uint8Array) => void
  readonly #napMs: number
  #socket: Socket | undefined
  #slab: Buffer = Buffer.allocUnsafeSlow(slabBytes)
  #paused = false
  #nap: NodeJS.Timeout | undefined
  #lastMs = -Infinity
  #small = 0

  /** @param take is given what was read; it may be kept, and is not written to again */
  constructor(take: (bytes: Uint8Array) => void, { napMs = usualNapMs } = {}) {
    this.#take = take
    this.#napMs = napMs
    this.onread = {
      buffer: () => this.#slab,
      callback: (length) => this.#read(length),
    }
  }

  /** Begins to look after the socket that was made with `onread`. */
  attend(socket: Socket): void {
    this.#socket = socket
    socket.once('close', () => clearTimeout(this.#nap))
  }

  pause(): void {
    this.#paused = true
    this.#socket?.pause()
  }

  resume(): void {
    this.#paused = false
    clearTimeout(this.#nap)
    this.#nap = undefined
    this.#socket?.resume()
  }

  #read(length: number): boolean {
    const bytes = this.#slab.subarray(0, length)
    this.#slab =
      this.#slab.length - length < leastBytes
        ? Buffer.allocUnsafeSlow(slabBytes)
        : this.#slab.subarray(length)
    this.#take(bytes)
    if (this.#isWorthANap(length)) this.#sleep()
    return true
  }

  #isWorthANap(length: number): boolean {
    const nowMs = performance.now()
    const soon = nowMs - this.#lastMs < soonMs
    this.#lastMs = nowMs
    if (!soon) this.#small = 0
    else if (length < littleBytes) this.#small += 1
    return this.#small >= patience
  }

  #sleep(): void {
    if (this.#paused || this.#nap) return
    this.#socket?.pause()
    this.#nap = setTimeout(() => {
      this.#nap = undefined
      // The first pieces behind it prove nothing, but one is enough to see that it goes on.
      this.#small = patience - 1
      this.#lastMs = performance.now()
      if (!this.#paused) this.#socket?.resume()
    }, this.#napMs)
  }
}
