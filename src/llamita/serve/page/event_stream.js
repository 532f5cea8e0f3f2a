// Server-sent events out of the body of an answer. EventSource cannot POST, so the bytes are taken apart here.

/** Takes text as it arrives, in any pieces, and gives the data of whole events. */
export class EventSplitter {
  #held = "";

  feed(text) {
    const events = (this.#held + text).split(/\r?\n\r?\n/);
    this.#held = events.pop();
    return events.map(dataOf).filter((data) => data !== null);
  }
}

/** The data lines of one event, or null for a comment, which servers send to keep a connection open. */
function dataOf(event) {
  const lines = event.split(/\r?\n/).filter((line) => line.startsWith("data:"));
  return lines.length ? lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n") : null;
}

/** Yields the JSON values of a stream of bytes; returns whether it ended as it should, with [DONE]. */
export async function* readEvents(stream) {
  const splitter = new EventSplitter();
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return false;
    for (const data of splitter.feed(value)) {
      if (data === "[DONE]") return true;
      yield JSON.parse(data);
    }
  }
}
