import type { TestContext } from 'node:test'
import { jarsOf } from '../jars.ts'

/** Folder with the jars of the Kafka in pom.xml; undefined when they cannot be had and the test was skipped. */
export function kafkaJars(t: Pick<TestContext, 'skip'>): Promise<string | undefined> {
  return jarsOf(t, new URL('pom.xml', import.meta.url), 'kafka')
}
