import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'

const folder = fileURLToPath(new URL('../../../shared/data/nab/data', import.meta.url))

/** A series of the Numenta Anomaly Benchmark: a real recording, beside the project where it is present. */
export interface NabSeries {
  file: string
  device: string
  rows: { time: string; value: number }[]
}

/** Undefined when the recordings are absent and the test was skipped. */
export async function nabSeries(t: TestContext, name: string): Promise<NabSeries | undefined> {
  const file = join(folder, name)
  if (!existsSync(file)) {
    t.skip(`needs the NAB recordings in ${folder}: https://github.com/numenta/NAB`)
    return undefined
  }
  const [, ...lines] = (await readFile(file, 'utf8')).trimEnd().split(/\r?\n/)
  return {
    file,
    device: name
      .split('/')
      .at(-1)!
      .replace(/\.csv$/, ''),
    rows: lines.map((line) => {
      const [time, value] = line.split(',')
      return { time: `${time!.replace(' ', 'T')}.000Z`, value: Number(value) }
    }),
  }
}
