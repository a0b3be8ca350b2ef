/** One line on stderr that says how far it is: on a terminal in place, otherwise whenever it changes. */
export class Progress implements Disposable {
  #last = ''

  show(text: string): void {
    if (text === this.#last) return
    this.#last = text
    process.stderr.write(process.stderr.isTTY ? `\r\u001b[K${text}` : `${text}\n`)
  }

  [Symbol.dispose](): void {
    if (this.#last && process.stderr.isTTY) process.stderr.write('\n')
  }
}
