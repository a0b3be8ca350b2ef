/**
 * One record of a CSV file, or a line that is none, cut at its delimiters as it stands; `line` counts from 1
 * and is where it begins.
 */
export interface CsvLine {
  line: number
  cells: string[]
  problem?: string
}

/** Longest record, UTF-16 units, and most lines that a quoted cell may span. */
const maxRecordLength = 64 * 1024
const maxRecordLines = 64

/**
 * Splits CSV text into records as it arrives (RFC 4180; LF or CRLF; cells may be quoted). A quote that is
 * never closed costs its own line and no other: the lines behind it are read afresh. That is why this is
 * not left to a library; those take the rest of the file for one cell.
 */
export class CsvReader {
  readonly #delimiter: string
  /** Text behind the last line end. */
  #rest = ''
  /** The line under way is too long and its text is being thrown away. */
  #overlong = false
  #line = 0
  /** Lines of a record whose quoted cell is still open. */
  #open: string[] = []

  /** @param delimiter one character; @param firstLine number of the first line that is fed */
  constructor(delimiter: ',' | ';', firstLine = 1) {
    this.#delimiter = delimiter
    this.#line = firstLine - 1
  }

  /** Records that `text` completes. Empty lines are none. */
  feed(text: string): CsvLine[] {
    const out: CsvLine[] = []
    let start = 0
    for (;;) {
      const end = text.indexOf('\n', start)
      if (end < 0) break
      this.#physicalLine(this.#rest + text.slice(start, end), out)
      this.#rest = ''
      start = end + 1
    }
    this.#rest += start === 0 ? text : text.slice(start)
    if (this.#rest.length > maxRecordLength) {
      this.#overlong = true
      this.#rest = ''
    }
    return out
  }

  /** Records that the end of the file completes. */
  end(): CsvLine[] {
    const out: CsvLine[] = []
    if (this.#rest !== '' || this.#overlong) this.#physicalLine(this.#rest, out)
    this.#rest = ''
    while (this.#open.length > 0) this.#giveUp(out)
    return out
  }

  #physicalLine(text: string, out: CsvLine[]): void {
    this.#line++
    const overlong = this.#overlong || text.length > maxRecordLength
    this.#overlong = false
    if (overlong) {
      while (this.#open.length > 0) this.#giveUp(out)
      const problem = `longer than ${maxRecordLength} characters`
      out.push({ line: this.#line, cells: [], problem })
      return
    }
    this.#take(text.endsWith('\r') ? text.slice(0, -1) : text, out)
  }

  #take(text: string, out: CsvLine[]): void {
    if (this.#open.length === 0) {
      if (text === '') return
      if (!text.includes('"')) {
        out.push({ line: this.#line, cells: text.split(this.#delimiter) })
        return
      }
    }
    this.#open.push(text)
    const record = this.#open.join('\n')
    const cells = splitCells(record, this.#delimiter)
    if (Array.isArray(cells)) {
      out.push({ line: this.#line - this.#open.length + 1, cells })
      this.#open = []
    } else if (
      cells === 'malformed' ||
      this.#open.length === maxRecordLines ||
      record.length > maxRecordLength
    ) {
      this.#giveUp(out)
    }
  }

  /** The first line of the open record is bad; what follows it is read afresh. */
  #giveUp(out: CsvLine[]): void {
    const lines = this.#open
    const last = this.#line
    const first = last - lines.length + 1
    this.#open = []
    const problem = 'a quote that is not closed, or text behind a closing quote'
    out.push({ line: first, cells: lines[0]!.split(this.#delimiter), problem })
    for (let i = 1; i < lines.length; i++) {
      this.#line = first + i
      this.#take(lines[i]!, out)
    }
    this.#line = last
  }
}

/** Cells of one record; `open` when its last quoted cell needs another line, `malformed` when nothing helps. */
export function splitCells(record: string, delimiter: string): string[] | 'open' | 'malformed' {
  const cells: string[] = []
  let position = 0
  for (;;) {
    if (record[position] !== '"') {
      const end = record.indexOf(delimiter, position)
      cells.push(end < 0 ? record.slice(position) : record.slice(position, end))
      if (end < 0) return cells
      position = end + 1
      continue
    }
    let cell = ''
    position++
    for (;;) {
      const end = record.indexOf('"', position)
      if (end < 0) return 'open'
      cell += record.slice(position, end)
      position = end + 1
      if (record[position] !== '"') break
      cell += '"'
      position++
    }
    cells.push(cell)
    if (position === record.length) return cells
    if (record[position] !== delimiter) return 'malformed'
    position++
  }
}

/** Quoted where it must be. */
export function csvCell(text: string): string {
  return /[",;\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}
