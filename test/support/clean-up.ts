import type { TestContext } from 'node:test'

export type Test = Pick<TestContext, 'after'>
type Undo = () => unknown

const stacks = new WeakMap<Test, Undo[]>()

/** As `t.after`, last first, each whatever became of the others: a process ends before its folder goes. */
export function cleanUp(t: Test, undo: Undo): void {
  let stack = stacks.get(t)
  if (!stack) {
    stack = []
    stacks.set(t, stack)
    t.after(() => unwind(stack!))
  }
  stack.push(undo)
}

async function unwind(stack: Undo[]): Promise<void> {
  const problems: unknown[] = []
  for (let undo = stack.pop(); undo; undo = stack.pop()) {
    try {
      await undo()
    } catch (problem) {
      problems.push(problem)
    }
  }
  if (problems.length > 0) throw new AggregateError(problems, 'the test could not be cleaned up')
}
