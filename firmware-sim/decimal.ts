/** A number with so many decimals, without a minus before a zero. */
export function decimalText(value: number, decimals: number): string {
  const text = value.toFixed(decimals)
  return /^-0(?:\.0*)?$/.test(text) ? text.slice(1) : text
}
