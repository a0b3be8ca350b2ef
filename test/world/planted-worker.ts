// Runs histories with one bug planted, until one is caught: a thread of `npm run world -- --planted-bugs`.
import { parentPort, workerData } from 'node:worker_threads'
import { type Caught, type Hunt, plant } from './planted.ts'

const { bug, from, to, only, shrinks } = workerData as Hunt
plant(bug)
const { runHistory, shrink } = await import('./history.ts')
let caught: Caught | undefined
for (let seed = from; seed <= to && !caught; seed++) {
  const history = await runHistory(seed, { only })
  if (history.violations.length === 0) continue
  const smallest = shrinks ? await shrink(history) : history
  const [{ promise, text }] = smallest.violations as [{ promise: string; text: string }]
  caught = { seed, only: smallest.only, promise, text }
}
parentPort?.postMessage(caught)
