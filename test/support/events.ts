/** Server-sent events as they come, each its lines. */
export async function* events(
  url: string,
  headers: Record<string, string>,
  signal: AbortSignal,
): AsyncGenerator<string, undefined> {
  const answer = await fetch(url, { headers, signal })
  let rest = ''
  for await (const chunk of answer.body!.pipeThrough(new TextDecoderStream())) {
    rest += chunk
    const whole = rest.split('\n\n')
    rest = whole.pop()!
    for (const event of whole) yield event
  }
}
