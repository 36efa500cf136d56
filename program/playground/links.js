/** Where a source can be opened. A `doc_uri` is whatever somebody indexed: only web addresses become web links. */

const WORDS_AT_EACH_END = 5;
const LONGEST_EXACT = 60;

// They turn the direction of the text around them, so a name could be read as another one.
const DIRECTION_MARKS = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
const CONTROLS = /[\u0000-\u001f\u007f-\u009f]+/g;

/** Untrusted words as one line of plain text, without characters that hide or turn it. */
export function plain(words) {
  return String(words).replace(DIRECTION_MARKS, "").replace(CONTROLS, " ").trim();
}

/** The web address of a document, or null when it is none (`javascript:`, `file:`, a path, a key, …). */
export function webAddress(uri) {
  let url;
  try {
    url = new URL(uri);
  } catch {
    return null;
  }
  return url.protocol === "http:" || url.protocol === "https:" ? url : null;
}

/** The web address of a document, scrolled to a quote where the browser can; null when it has none. */
export function quoteAddress(uri, quote) {
  const url = webAddress(uri);
  if (!url) return null;
  const directive = textDirective(quote);
  if (!directive) return url.href;
  if (url.hash.includes(":~:")) return `${url.href}&${directive}`;
  // `url.hash` is empty for a bare `#`, which the address still ends in.
  return `${url.href}${url.href.includes("#") ? "" : "#"}:~:${directive}`;
}

/** `text=…` for a quote: all of a short one, the first and last words of a long one; empty without words. */
export function textDirective(quote) {
  const shown = asShown(quote);
  if (!/[\p{L}\p{N}]/u.test(shown)) return "";
  if (shown.length <= LONGEST_EXACT) return `text=${encode(shown)}`;
  const words = wordsOf(shown);
  if (words.length < 2 * WORDS_AT_EACH_END + 2) return `text=${encode(shown)}`;
  const first = words[WORDS_AT_EACH_END - 1];
  const last = words[words.length - WORDS_AT_EACH_END];
  return `text=${encode(shown.slice(words[0].start, first.end))},${encode(shown.slice(last.start))}`;
}

/** The quote as a page shows it: indexed text may be Markdown, whose marks are not in the page. */
function asShown(quote) {
  const lines = plainLines(quote);
  const body = lines.filter((line) => !/^\s*#{1,6}\s/.test(line));
  return (body.length ? body : lines)
    .join(" ")
    .replace(/^\s*(?:#{1,6}|[-*+>]|\d+[.)])\s+/, "")
    .replace(/!?\[([^\]]*)\]\([^)]*\)/g, "$1")
    .replace(/`|\*\*/g, "")
    .replace(/(^|[^\p{L}\p{N}*])\*([^\s*][^*]*)\*(?![\p{L}\p{N}])/gu, "$1$2")
    .replace(/…$/, "")
    .replace(/\s+/g, " ")
    .trim();
}

function plainLines(quote) {
  return String(quote)
    .split(/\r?\n/)
    .filter((line) => line.trim());
}

/** Where the words are; Japanese, which writes no spaces, is divided by the browser's dictionary. */
function wordsOf(words) {
  if (!Intl.Segmenter) {
    return [...words.matchAll(/\S+/g)].map((match) => ({
      start: match.index,
      end: match.index + match[0].length,
    }));
  }
  return [...new Intl.Segmenter(undefined, { granularity: "word" }).segment(words)]
    .filter((segment) => segment.isWordLike)
    .map(({ index, segment }) => ({ start: index, end: index + segment.length }));
}

/** Percent-encoded; `-` too, which has a meaning in a text directive. A lone surrogate cannot be encoded. */
function encode(words) {
  return encodeURIComponent(words.toWellFormed ? words.toWellFormed() : words).replaceAll("-", "%2D");
}

/** This page's own address of an indexed document, with a passage (and a quote in it) to highlight. */
export function documentAddress(uri, chunk, quote) {
  const query = new URLSearchParams({ document: uri });
  if (chunk) query.set("chunk", chunk);
  if (quote) query.set("quote", quote.slice(0, 500));
  return `/?${query}`;
}

/** A short name of where a document is: the host and path of a web address, else the `doc_uri` itself. */
export function placeName(uri) {
  const url = webAddress(uri);
  if (!url) return plain(uri);
  let path = url.pathname;
  try {
    path = decodeURIComponent(path);
  } catch {
    // Not UTF-8: as it is written.
  }
  return plain(`${url.host}${path === "/" ? "" : path}`);
}
