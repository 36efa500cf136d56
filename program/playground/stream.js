/** Server-sent events over fetch, which unlike EventSource can post, carry a token, and be stopped. */

/**
 * The data of each event in a body, as it comes.
 *
 * Lines may end in any of the three ways and be cut anywhere, also inside a character; comments are skipped.
 */
export async function* readEvents(body) {
  let data = [];
  for await (const line of readLines(body)) {
    if (line === "") {
      if (data.length) yield data.join("\n");
      data = [];
    } else if (line.startsWith("data:")) {
      data.push(line.slice(line.startsWith("data: ") ? 6 : 5));
    }
  }
  // An event without its empty line at the end was cut off: it is none.
}

async function* readLines(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let pending = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      pending += decoder.decode(value, { stream: !done });
      // A carriage return at the very end may be half of a line's end.
      const certain = !done && pending.endsWith("\r") ? pending.length - 1 : pending.length;
      const lines = pending.slice(0, certain).split(/\r\n|\n|\r/);
      pending = lines.pop() + pending.slice(certain);
      yield* lines;
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
