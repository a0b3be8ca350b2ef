/** What is known of an agent beside its name. */
export type Labels = Readonly<Record<string, string>>

/** Names of labels, and the values that a group may ask for. */
const labelName = /^[A-Za-z_][A-Za-z0-9_.-]{0,63}$/
const labelValue = /^[^,=\s\p{Cc}]{1,256}$/u

/** Whether it can be the name of a label. */
export function isLabelName(text: string): boolean {
  return labelName.test(text)
}

/**
 * What is wrong with a group's name; undefined when nothing is. A group is `boilers`, which stands for
 * `group=boilers`, or all the labels that its members have: `site=berlin,line=3`.
 */
export function groupProblem(group: string): string | undefined {
  if (group.length > 1_024) return 'longer than 1,024 characters'
  for (const { label, value } of wanted(group))
    if (!labelName.test(label) || !labelValue.test(value))
      return 'expected a name such as boilers, or labels such as site=berlin,line=3'
  return undefined
}

/** Whether an agent with these labels is in the group. A label may have several values: `boilers,pumps`. */
export function isMember(group: string, labels: Labels): boolean {
  return (
    groupProblem(group) === undefined &&
    wanted(group).every(
      ({ label, value }) =>
        Object.hasOwn(labels, label) &&
        labels[label]!.split(',').some((own) => own.trim() === value),
    )
  )
}

function wanted(group: string): { label: string; value: string }[] {
  if (!group.includes('=')) return [{ label: 'group', value: group }]
  return group.split(',').map((part) => {
    const at = part.indexOf('=')
    return { label: part.slice(0, Math.max(at, 0)), value: part.slice(at + 1) }
  })
}
