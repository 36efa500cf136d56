/** The sources of an answer: markers in its text, what shows at a marker, and the lists below it. */

import { el, icon } from "./dom.js";
import { documentAddress, placeName, plain, quoteAddress, webAddress } from "./links.js";
import { sayAttribute } from "./messages.js";

/**
 * A link to a document: the web page at the quote, or at its section, in a new tab, else the view of the
 * indexed document.
 * The latter has `data-document`, which `document-view.js` listens for.
 */
export function sourceLink({ uri, url, chunkId, quote }, properties, ...children) {
  const href = quoteAddress(url, quote);
  if (href)
    return el("a", { href, target: "_blank", rel: "noopener noreferrer", ...properties }, ...children);
  return indexLink({ uri, chunkId, quote }, properties, ...children);
}

/** A link to the view of the indexed document, whatever its `doc_uri`. */
export function indexLink({ uri, chunkId, quote }, properties, ...children) {
  const link = el("a", { href: documentAddress(uri, chunkId, quote), ...properties }, ...children);
  link.dataset.document = "";
  return link;
}

/** The marker of a citation in the text. Its brackets are there for who copies the text. */
export function markerLink(citation) {
  const { number, uri, url, chunkId, quote } = citation;
  const title = plain(citation.title || uri);
  const link = sourceLink(
    { uri, url, chunkId, quote },
    { class: "marker", label: "marker", says: { number, title }, "aria-describedby": "source-popover" },
    el("span", { class: "bracket" }, "["),
    String(number),
    el("span", { class: "bracket" }, "]"),
  );
  link.dataset.number = number;
  return link;
}

/** The passages of an answer by number: what was cited, with its quotes, and what was only retrieved. */
export function gatherSources(answer) {
  const cited = new Map();
  for (const { number, uri, url, title, chunkId, quote } of answer.citations) {
    const source = cited.get(number) ?? {
      number,
      uri,
      url,
      title,
      chunkId,
      quotes: [],
      score: null,
      snippet: "",
    };
    if (quote && !source.quotes.includes(quote)) source.quotes.push(quote);
    cited.set(number, source);
  }
  const uncited = [];
  for (const source of answer.outputs?.sources ?? []) {
    const { number, doc_uri: uri, url, title, chunk_id: chunkId, score, snippet } = source;
    if (cited.has(number)) Object.assign(cited.get(number), { score, snippet });
    else uncited.push({ number, uri, url, title, chunkId, quotes: [], score, snippet });
  }
  return { cited: [...cited.values()].sort((a, b) => a.number - b.number), uncited };
}

/** The lists under an answer; nothing when nothing was retrieved. */
export function sourcesSection(answer) {
  const { cited, uncited } = gatherSources(answer);
  if (!cited.length && !uncited.length) return null;
  const section = el("div", { class: "sources" });
  if (cited.length) section.append(el("h3", { class: "sources-heading", say: "sources" }), sourceList(cited));
  if (uncited.length) {
    const summary = el("summary", {}, el("span", { say: "uncited", says: { count: uncited.length } }));
    section.append(el("details", { class: "uncited" }, summary, sourceList(uncited)));
  }
  return section;
}

function sourceList(sources) {
  return el("ol", { class: "source-list" }, ...sources.map(sourceItem));
}

function sourceItem({ number, uri, url, title, chunkId, quotes, score, snippet }) {
  const name = plain(title || uri);
  const link = sourceLink(
    { uri, url, chunkId, quote: quotes[0] ?? "" },
    { class: "source-title", dir: "auto" },
    name,
    webAddress(url) ? icon("external") : icon("document"),
  );
  if (webAddress(url)) sayAttribute(link, "title", "opensNewTab");
  const words = quotes.length
    ? quotes.map(quoteBlock)
    : [el("p", { class: "snippet", dir: "auto" }, ...quoteWords(snippet.replace(/^#{1,6} +/, "")))];
  const foot = el(
    "p",
    { class: "source-foot" },
    el("bdi", { class: "place" }, placeName(uri)),
    score === null ? null : el("span", { say: "score", says: { score: shownScore(score) } }),
    indexLink(
      { uri, chunkId, quote: quotes[0] ?? "" },
      { say: "showInIndex", label: "showTitleInIndex", says: { title: name } },
    ),
  );
  const badge = el("span", { class: "source-number" }, String(number));
  return el("li", { class: "source", value: String(number) }, badge, el("div", {}, link, ...words, foot));
}

function quoteBlock(quote) {
  return el("blockquote", { class: "quote", dir: "auto" }, ...quoteWords(quote));
}

/** A quote's words, with what stands between single backticks shown as code. */
export function quoteWords(quote) {
  return quote.split(/`([^`\n]+)`/).map((part, i) => (i % 2 ? el("code", { translate: "no" }, part) : part));
}

/** A score as it is read: four figures are enough. */
export function shownScore(score) {
  return String(Number(score.toPrecision(4)));
}
