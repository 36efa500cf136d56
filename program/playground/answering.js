/** An answer as a value, and how the events of the stream change it. */

import { ServerError } from "./server.js";

/**
 * An answer of which nothing was said yet. `status`: writing, done, stopped, failed. `searching` is what a model is
 * searching for that decides on its own searches.
 */
export function emptyAnswer() {
  return {
    status: "writing",
    searching: "",
    text: "",
    citations: [],
    outputs: null,
    traceId: null,
    error: null,
    feedback: null,
  };
}

/**
 * Let the server write `answer`; `changed` is called after each event. It never throws: what went wrong, or
 * that it was stopped, is in the answer, and what was said before stays.
 */
export async function writeAnswer(server, request, answer, { signal, changed }) {
  try {
    let complete = false;
    for await (const event of server.answer(request, signal)) {
      complete = applyEvent(answer, event) || complete;
      changed();
    }
    if (!complete) throw new ServerError("cutOff");
    answer.status = "done";
  } catch (error) {
    if (signal.aborted) {
      answer.status = "stopped";
    } else if (error instanceof ServerError) {
      const { kind, message, status, retryAfterS, requestId } = error;
      answer.status = "failed";
      answer.error = { kind, message, status, retryAfterS, requestId };
    } else {
      // A mistake of this page: told to the person as a failure, and to the console as what it is.
      reportError(error);
      answer.status = "failed";
      answer.error = { kind: "unreadable", message: "", status: 0, retryAfterS: null, requestId: null };
    }
  }
  changed();
}

/** Take one event in; whether the answer is complete with it. */
export function applyEvent(answer, event) {
  if (typeof event.trace_id === "string") answer.traceId = event.trace_id;
  switch (event.type) {
    case "response.output_text.delta":
      answer.text += event.delta;
      return false;
    case "response.output_text.annotation.added":
      addCitation(answer, event.annotation);
      return false;
    case "response.output_item.done":
      if (event.item?.type === "function_call") answer.searching = readQuery(event.item.arguments);
      takeItem(answer, event.item);
      answer.outputs = readOutputs(event.custom_outputs) ?? answer.outputs;
      return false;
    case "response.created":
    case "response.in_progress":
      takeTrace(answer, event.response);
      return false;
    case "response.completed":
      takeTrace(answer, event.response);
      takeItem(
        answer,
        event.response?.output?.findLast?.((item) => item?.type === "message"),
      );
      answer.outputs = readOutputs(event.response?.custom_outputs) ?? answer.outputs;
      return true;
    case "response.failed":
    case "error":
      throw new ServerError("failed", { message: event.message ?? event.response?.error?.message });
    default:
      return false;
  }
}

/** The finished text and annotations stand for what was streamed. */
function takeItem(answer, item) {
  const content = item?.content?.find?.((part) => part?.type === "output_text");
  if (typeof content?.text !== "string") return;
  answer.text = content.text;
  answer.citations = [];
  for (const annotation of Array.isArray(content.annotations) ? content.annotations : []) {
    addCitation(answer, annotation);
  }
}

/** What a tool's arguments, which are JSON, say to search for; nothing where they say none. */
function readQuery(words) {
  try {
    return word(JSON.parse(words)?.query);
  } catch {
    return "";
  }
}

function takeTrace(answer, response) {
  if (typeof response?.metadata?.trace_id === "string") answer.traceId = response.metadata.trace_id;
}

function addCitation(answer, annotation) {
  const citation = readAnnotation(annotation, answer.text);
  if (citation) answer.citations.push(citation);
}

/**
 * An annotation as a citation whose `start` and `end` count as JavaScript does; null when it is none.
 *
 * The wire counts code points: a rare kanji or an emoji before the marker is one there and two here.
 */
export function readAnnotation(annotation, text) {
  if (annotation?.type !== "url_citation" || !Number.isInteger(annotation.number)) return null;
  const start = utf16Index(text, annotation.start_index);
  const end = utf16Index(text, annotation.end_index);
  return readCitation({
    number: annotation.number,
    start: text.slice(start, end) === `[${annotation.number}]` ? start : -1,
    end,
    uri: annotation.doc_uri,
    url: annotation.url,
    title: annotation.title,
    chunkId: annotation.chunk_id,
    quote: annotation.quote,
  });
}

/** Where the code point number `codePoints` begins, in UTF-16 units. */
export function utf16Index(text, codePoints) {
  if (!Number.isInteger(codePoints) || codePoints < 0) return -1;
  let index = 0;
  for (let left = codePoints; left > 0 && index < text.length; left -= 1) {
    index += text.codePointAt(index) > 0xffff ? 2 : 1;
  }
  return index;
}

/** A citation of known shape out of whatever is given: the wire or the browser's storage. */
export function readCitation(value) {
  if (!Number.isInteger(value?.number)) return null;
  return {
    number: value.number,
    start: Number.isInteger(value.start) ? value.start : -1,
    end: Number.isInteger(value.end) ? value.end : -1,
    // What was kept before sections had links of their own, and other agents, say the url alone.
    uri: word(value.uri) || word(value.url),
    url: word(value.url),
    title: word(value.title),
    chunkId: word(value.chunkId),
    quote: word(value.quote),
  };
}

/** `custom_outputs` of known shape; null when there are none. */
export function readOutputs(value) {
  if (value === null || typeof value !== "object") return null;
  const timings = value.timings_ms !== null && typeof value.timings_ms === "object" ? value.timings_ms : {};
  return {
    reader: word(value.reader),
    abstained: value.abstained === true,
    query: word(value.query),
    dropped_markers: Number.isInteger(value.dropped_markers) ? value.dropped_markers : 0,
    fallback_reason: word(value.fallback_reason) || null,
    timings_ms: Object.fromEntries(Object.entries(timings).filter(([, ms]) => Number.isFinite(ms))),
    sources: (Array.isArray(value.sources) ? value.sources : []).map(readSource).filter(Boolean),
  };
}

function readSource(value) {
  if (!Number.isInteger(value?.number)) return null;
  return {
    number: value.number,
    cited: value.cited === true,
    doc_uri: word(value.doc_uri),
    url: word(value.url) || word(value.doc_uri),
    title: word(value.title),
    chunk_id: word(value.chunk_id),
    score: Number.isFinite(value.score) ? value.score : null,
    snippet: word(value.snippet),
  };
}

function word(value) {
  return typeof value === "string" ? value : "";
}
