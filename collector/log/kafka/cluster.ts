/**
 * What the log needs of a Kafka cluster, so that all else is free of the client. Offsets are numbers: exact
 * up to 2^53. Each method throws LogFailure LOG_DISK when the cluster does not do it within some seconds.
 */
export interface Cluster {
  /** Makes the topics that are missing; one that is there stays as it is. */
  ensureTopics(topics: readonly TopicWish[]): Promise<void>

  topic(name: string): Promise<TopicFacts>

  /**
   * A writer for everything of one transactional id. Whoever had one before can commit nothing from now
   * on; what it had begun is decided.
   *
   * @param compressed topics whose records are worth it
   */
  writer(transactionalId: string, compressed?: readonly string[]): Promise<Writer>

  /**
   * Committed records in order, as they came: those of one answer of the broker together, and behind them
   * where the next begin. Ends there or behind `toOffset`; without it, when the signal aborts.
   */
  read(place: Place, options: ReadOptions): AsyncIterable<Piece>

  /** The first offset that is there and the one behind the last, committed or not. */
  ends(place: Place): Promise<{ first: number; next: number }>

  /** Of the first record with that time or a later one; undefined when there is none. */
  offsetSince(place: Place, timeMs: number): Promise<number | undefined>

  /** Removes everything before an offset. */
  deleteBefore(place: Place, offset: number): Promise<void>

  /** Becomes a member of a group that shares out the partitions of a topic. */
  join(options: JoinOptions): Promise<Membership>

  /** What those say of themselves who have the partitions of a topic, by partition. */
  owners(group: string, topic: string): Promise<Map<number, string>>

  close(): Promise<void>
}

export interface TopicWish {
  name: string
  partitions: number
  replicas: number
  settings: Readonly<Record<string, string>>
}

export interface TopicFacts {
  partitions: number
  settings: ReadonlyMap<string, string>
}

export interface Place {
  topic: string
  partition: number
}

export interface NewRecord extends Place {
  key: string
  value: Uint8Array
  headers?: Readonly<Record<string, string>>
  /** Further ones, the same object for many records. */
  common?: Readonly<Record<string, string>>
  /** At least 0. */
  timeMs: number
}

export interface StoredRecord {
  offset: number
  key: string
  value: Uint8Array
  header(name: string): string | undefined
}

export interface Piece {
  records: StoredRecord[]
  /** Where the next begin: behind what is no record, too. */
  next: number
}

export interface ReadOptions {
  fromOffset: number
  /** No longer wanted. */
  toOffset?: number
  signal?: AbortSignal | undefined
}

/** One at a time commits under a transactional id. After a commit that failed it is of no more use. */
export interface Writer {
  /**
   * All of them become readable, or none. Resolves once that is so for good.
   *
   * @param places all that the records go to
   * @param records taken as they are sent; of one place they keep their order
   * @throws LogFailure LOG_DISK when they may or may not have become so
   */
  commit(places: readonly Place[], records: Iterable<NewRecord>): Promise<void>
  close(): void
}

export interface JoinOptions {
  group: string
  topic: string
  /** What the others can know of this member: asked for at each rebalance. */
  about(): string
  /** Shares the partitions out; the member that the group has chosen is asked. */
  share(members: ReadonlyMap<string, string>, partitions: number): Map<string, number[]>
  /** Called with the partitions of this member each time they have been shared out. */
  assigned(partitions: readonly number[]): void
}

export interface Membership {
  /** Lets the others have its partitions. */
  leave(): Promise<void>
}
