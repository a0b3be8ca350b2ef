// Runs histories with one bug planted, until one is caught: a thread of `npm run world -- --planted-bugs`.
import { parentPort, workerData } from 'node:worker_threads'
import { type Caught, type PlantedBug, plant } from './planted.ts'

const { bug, seeds } = workerData as { bug: PlantedBug; seeds: number }
plant(bug)
const { runHistory } = await import('./history.ts')
let caught: Caught | undefined
for (let seed = 1; seed <= seeds && !caught; seed++) {
  const [violation] = (await runHistory(seed)).violations
  if (violation) caught = { seed, violation: `${violation.promise}: ${violation.text}` }
}
parentPort?.postMessage(caught)
