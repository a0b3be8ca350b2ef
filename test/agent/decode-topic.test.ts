import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  filtersMeet,
  TopicTemplate,
  templateProblem,
  topicFilter,
} from '../../agent/decode/topic.ts'
import { Seeded } from '../support/seeded.ts'

test('a template takes what stands in the place of its names', () => {
  const template = new TopicTemplate('a/{one}/+/{two}/#')
  assert.deepEqual(template.names, ['one', 'two'])
  assert.equal(template.filter, 'a/+/+/+/#')
  assert.deepEqual(template.match('a/x/y/z/and/so/on'), ['x', 'z'])
  assert.deepEqual(template.match('a/x/y/z'), ['x', 'z'])
  assert.deepEqual(template.match('a//y/'), ['', ''])
  assert.equal(template.match('a/x/y'), undefined)
  assert.equal(template.match('b/x/y/z'), undefined)
  assert.equal(new TopicTemplate('a/b').match('a/b/'), undefined)
  assert.equal(new TopicTemplate('a/b').match('a/bc'), undefined)
})

test('a template matches exactly the topics that its filter takes', () => {
  const random = new Seeded(7)
  const levels = ['', 'a', 'b', '$s', 'ab']
  for (let i = 0; i < 20_000; i++) {
    const text = Array.from({ length: 1 + random.below(4) }, (_, n) =>
      random.pick(['+', `{n${n}}`, ...levels]),
    )
    if (random.chance(0.3)) text.push('#')
    const template = text.join('/')
    if (template === '') continue
    const topic = Array.from({ length: 1 + random.below(4) }, () => random.pick(levels)).join('/')
    assert.equal(
      new TopicTemplate(template).match(topic) !== undefined,
      taken(topicFilter(template), topic),
      `${template} and ${topic}`,
    )
    if (topic) assert.equal(filtersMeet(topicFilter(template), topic), taken(template, topic))
  }
})

/** MQTT 5, 4.7, as plainly as it can be written. */
function taken(template: string, topic: string): boolean {
  const pattern = topicFilter(template)
    .replaceAll('$', '\\$')
    .replace(/\/#$/, '(?:/.*)?')
    .replace(/^#$/, '.*')
    .replaceAll('+', '[^/]*')
  const wild = /^[+#]/.test(topicFilter(template))
  return !(wild && topic.startsWith('$')) && new RegExp(`^${pattern}$`).test(topic)
}

test('two filters meet where some topic is of both', () => {
  for (const [a, b, meet] of [
    ['sensors/+/+', 'sensors/+/temperature', true],
    ['sensors/#', '+/x', true],
    ['a/#', 'a', true],
    ['a/+', 'a', false],
    ['a/b', 'a/c', false],
    ['+/b', 'a/+', true],
    ['#', '$SYS/x', false],
    ['$SYS/#', '$SYS/x', true],
  ] as const) {
    assert.equal(filtersMeet(a, b), meet, `${a} ${b}`)
    assert.equal(filtersMeet(b, a), meet, `${b} ${a}`)
  }
})

test('a bad template is told by what is wrong with it', () => {
  for (const [text, problem] of [
    ['', /empty/],
    ['a/#/b', /# may only be the last/],
    ['a/x{device}', /must fill a level/],
    ['a/b+', /must fill a level/],
    ['a/{de-vice}', /must fill a level/],
    ['a/{x}/{x}', /\{x\} is there twice/],
    ['a/\u0000', /control character/],
    ['a'.repeat(1_025), /longer/],
  ] as const)
    assert.match(templateProblem(text) ?? '', problem, text)
  assert.equal(templateProblem('$SYS/{a}//+/#'), undefined)
})
