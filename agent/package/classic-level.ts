import { dirname } from 'node:path'
import { type DatabaseOptions, ClassicLevel as Level } from 'classic-level'
import { loadAddon } from './addon.ts'

/** Stands in for classic-level's class in a packed agent: its native part is loaded when a store is opened, not before. */
export class ClassicLevel<Key, Value> extends Level<Key, Value> {
  constructor(location: string, options?: DatabaseOptions<Key, Value>) {
    loadAddon(dirname(location))
    super(location, options)
  }
}
