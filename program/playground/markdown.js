/**
 * Markdown as a tree of plain values, for `render.js` to show. No markup comes out of it but what is listed
 * here; HTML in the text is text.
 *
 * A node is a string or `{tag, attributes?, children?}`; a marker is `{marker: citation}`. Each character
 * keeps its place in the source, since that is how citations name their markers.
 */

const DEEPEST = 10;

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`\s]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+|$)/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^([ \t]*)([-*+]|\d{1,9}[.)])(?:([ \t]+)(?=\S)|[ \t]*$)/;
const TABLE_RULE = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;

const LINK =
  /!?\[([^[\]\n]{0,300})\]\(\s*<?([^\s<>()]*(?:\([^\s<>()]*\)[^\s<>()]*)*)>?(?:\s+"[^"\n]*")?\s*\)/y;
const ADDRESS = /https?:\/\/[^\s<>"`\u3000-\u303f\uff00-\uffef]+/iy;
const BRACKETED = /<(https?:\/\/[^\s<>]+)>/iy;
const ESCAPED = /\\[!-/:-@[-`{-~]/y;

/** The blocks of a text. `citations` have `start` and `end`, the places of their markers in it. */
export function parseMarkdown(text, citations = []) {
  const markers = new Map(
    citations.filter(({ start }) => start >= 0).map((citation) => [citation.start, citation]),
  );
  return parseBlocks(splitLines(text), markers, 0);
}

function splitLines(text) {
  const lines = [];
  for (let at = 0; at <= text.length;) {
    const end = text.indexOf("\n", at);
    const stop = end < 0 ? text.length : end;
    lines.push({ text: text.slice(at, stop).replace(/\r$/, ""), at });
    at = stop + 1;
  }
  return lines;
}

const isBlank = (line) => !line.text.trim();
const cut = (line, count) => ({ text: line.text.slice(count), at: line.at + count });
const indentOf = (line) => line.text.length - line.text.trimStart().length;

function parseBlocks(lines, markers, depth) {
  const blocks = [];
  let i = 0;
  while (i < lines.length) {
    if (isBlank(lines[i])) {
      i += 1;
      continue;
    }
    const parse = blockParser(lines, i, depth);
    i = parse(lines, i, blocks, markers, depth);
  }
  return blocks;
}

function blockParser(lines, i, depth) {
  const { text } = lines[i];
  if (FENCE.test(text)) return parseFence;
  if (HEADING.test(text)) return parseHeading;
  if (RULE.test(text)) return parseRule;
  if (depth < DEEPEST && QUOTE.test(text)) return parseQuote;
  if (depth < DEEPEST && ITEM.test(text)) return parseList;
  if (text.includes("|") && i + 1 < lines.length && isTableRule(lines[i + 1].text)) return parseTable;
  return parseParagraph;
}

const isTableRule = (text) => text.includes("|") && TABLE_RULE.test(text);

function parseFence(lines, i, blocks) {
  const [, fence, info] = FENCE.exec(lines[i].text);
  const indent = indentOf(lines[i]);
  const closing = new RegExp(`^ {0,3}${fence[0]}{${fence.length},}[ \\t]*$`);
  const code = [];
  let next = i + 1;
  while (next < lines.length && !closing.test(lines[next].text)) {
    code.push(lines[next].text.slice(Math.min(indent, indentOf(lines[next]))));
    next += 1;
  }
  const language = /^[\w+#.-]{1,30}$/.test(info) ? info : "";
  blocks.push({
    tag: "pre",
    attributes: { tabindex: "0", translate: "no", ...(language && { title: language }) },
    children: [{ tag: "code", children: [code.join("\n")] }],
  });
  return next + 1;
}

function parseHeading(lines, i, blocks, markers) {
  const [all, hashes] = HEADING.exec(lines[i].text);
  const line = cut(lines[i], all.length);
  line.text = line.text.replace(/[ \t]+#*[ \t]*$/, "");
  // The page's title is h1 and the question h2: an answer's headings begin below them.
  blocks.push({ tag: `h${Math.min(hashes.length + 2, 6)}`, children: parseInline(join([line]), markers) });
  return i + 1;
}

function parseRule(lines, i, blocks) {
  blocks.push({ tag: "hr" });
  return i + 1;
}

function parseQuote(lines, i, blocks, markers, depth) {
  const inner = [];
  let next = i;
  while (next < lines.length && QUOTE.test(lines[next].text)) {
    inner.push(cut(lines[next], QUOTE.exec(lines[next].text)[0].length));
    next += 1;
  }
  blocks.push({ tag: "blockquote", children: parseBlocks(inner, markers, depth + 1) });
  return next;
}

function parseList(lines, i, blocks, markers, depth) {
  const [, , first] = ITEM.exec(lines[i].text);
  const base = indentOf(lines[i]);
  const kind = first.at(-1);
  const items = [];
  let next = i;
  while (next < lines.length) {
    const match = ITEM.exec(lines[next].text);
    if (!match || match[2].at(-1) !== kind || indentOf(lines[next]) > base + 1 || RULE.test(lines[next].text))
      break;
    const taken = takeItem(lines, next, match, base);
    items.push({ tag: "li", children: unwrap(parseBlocks(taken.lines, markers, depth + 1)) });
    next = taken.next;
  }
  const ordered = /\d/.test(first);
  const start = parseInt(first, 10);
  blocks.push({
    tag: ordered ? "ol" : "ul",
    attributes: ordered && start !== 1 ? { start: String(start) } : {},
    children: items,
  });
  return next;
}

/** The lines of one item: those indented below its marker, and plain ones that follow without an empty line. */
function takeItem(lines, i, match, base) {
  const width = match[0].length;
  const inner = [cut(lines[i], width)];
  let next = i + 1;
  let blank = false;
  for (; next < lines.length; next += 1) {
    const line = lines[next];
    if (isBlank(line)) {
      blank = true;
      inner.push(cut(line, line.text.length));
      continue;
    }
    // Models indent what is nested by two, whatever the width of the marker above.
    const nested = indentOf(line) >= Math.min(width, base + 2);
    if (!nested && (blank || ITEM.test(line.text) || FENCE.test(line.text) || HEADING.test(line.text))) break;
    inner.push(cut(line, nested ? Math.min(indentOf(line), width) : 0));
    blank = false;
  }
  return { lines: inner, next };
}

function unwrap(blocks) {
  const [first, ...rest] = blocks;
  return first?.tag === "p" ? [...first.children, ...rest] : blocks;
}

function parseTable(lines, i, blocks, markers) {
  const alignments = splitCells(lines[i + 1]).map(({ text }) => {
    const rule = text.trim();
    if (rule.endsWith(":")) return rule.startsWith(":") ? "centre" : "end";
    return "start";
  });
  const row = (line, tag) => {
    const cells = splitCells(line);
    return {
      tag: "tr",
      children: alignments.map((alignment, column) => ({
        tag,
        attributes: { class: `align-${alignment}`, ...(tag === "th" && { scope: "col" }) },
        children: column < cells.length ? parseInline(join([cells[column]]), markers) : [],
      })),
    };
  };
  const head = { tag: "thead", children: [row(lines[i], "th")] };
  const body = { tag: "tbody", children: [] };
  let next = i + 2;
  for (; next < lines.length && lines[next].text.includes("|"); next += 1)
    body.children.push(row(lines[next], "td"));
  blocks.push({
    tag: "div",
    attributes: { class: "table", tabindex: "0" },
    children: [{ tag: "table", children: [head, body] }],
  });
  return next;
}

function splitCells(line) {
  const cells = [];
  let from = /^\s*\|/.exec(line.text)?.[0].length ?? 0;
  for (let i = from; i <= line.text.length; i += 1) {
    if (line.text[i] === "\\") i += 1;
    else if (i === line.text.length ? line.text.slice(from).trim() : line.text[i] === "|") {
      const leading = indentOf({ text: line.text.slice(from, i) });
      cells.push({ text: line.text.slice(from, i).trim(), at: line.at + from + leading });
      from = i + 1;
    }
  }
  return cells;
}

function parseParagraph(lines, i, blocks, markers, depth) {
  const inner = [cut(lines[i], indentOf(lines[i]))];
  let next = i + 1;
  while (next < lines.length && !isBlank(lines[next]) && blockParser(lines, next, depth) === parseParagraph) {
    inner.push(cut(lines[next], indentOf(lines[next])));
    next += 1;
  }
  blocks.push({ tag: "p", children: parseInline(join(inner), markers) });
  return next;
}

/** Lines as one stretch of text that knows the place of each character in the source. */
function join(lines) {
  let text = "";
  const places = [];
  for (const [number, line] of lines.entries()) {
    if (number) {
      text += "\n";
      places.push(line.at - 1);
    }
    const content = line.text.trimEnd();
    for (let i = 0; i < content.length; i += 1) places.push(line.at + i);
    text += content;
  }
  return { text, places };
}

const sub = (stretch, from, to) => ({
  text: stretch.text.slice(from, to),
  places: stretch.places.slice(from, to),
});

/** Inline nodes of a stretch. */
function parseInline(stretch, markers, depth = 0) {
  const nodes = [];
  const missing = new Set();
  const push = (node) => {
    // A marker stays on the line of the words before it.
    if (node.marker && nodes.at(-1)?.endsWith?.(" "))
      nodes[nodes.length - 1] = `${nodes.at(-1).slice(0, -1)}\u00a0`;
    if (typeof node === "string" && typeof nodes.at(-1) === "string") nodes[nodes.length - 1] += node;
    else if (node !== "") nodes.push(node);
  };
  const { text } = stretch;
  let i = 0;
  while (i < text.length) {
    const found = inlineAt(stretch, i, markers, depth, missing);
    if (found) {
      for (const node of found.nodes) push(node);
      i = found.end;
    } else {
      push(text[i]);
      i += 1;
    }
  }
  return nodes;
}

function inlineAt(stretch, i, markers, depth, missing) {
  const { text } = stretch;
  switch (text[i]) {
    case "\n":
      return { nodes: [{ tag: "br" }], end: i + 1 };
    case "\\":
      return matchAt(ESCAPED, text, i) && { nodes: [text[i + 1]], end: i + 2 };
    case "`":
      return codeAt(text, i, missing);
    case "[": {
      const citation = markers.get(stretch.places[i]);
      if (citation) return { nodes: [{ marker: citation }], end: i + (citation.end - citation.start) };
      return linkAt(text, i);
    }
    case "!":
      return text[i + 1] === "[" ? linkAt(text, i) : null;
    case "<":
      return bracketedAddressAt(text, i);
    case "h":
    case "H":
      return addressAt(text, i);
    case "*":
    case "_":
    case "~":
      return depth < DEEPEST ? emphasisAt(stretch, i, markers, depth, missing) : null;
    default:
      return null;
  }
}

function matchAt(pattern, text, i) {
  pattern.lastIndex = i;
  return pattern.exec(text);
}

function runAt(text, i) {
  let end = i;
  while (text[end] === text[i]) end += 1;
  return text.slice(i, end);
}

function codeAt(text, i, missing) {
  const fence = runAt(text, i);
  const end = closingRun(text, i + fence.length, fence, missing);
  if (end < 0) return { nodes: [fence], end: i + fence.length };
  const code = text.slice(i + fence.length, end).replaceAll("\n", " ");
  const padded = code.length > 2 && code.startsWith(" ") && code.endsWith(" ") && code.trim();
  return {
    nodes: [{ tag: "code", attributes: { translate: "no" }, children: [padded ? code.slice(1, -1) : code] }],
    end: end + fence.length,
  };
}

/** Where the run of backticks that closes `fence` begins; what is missing once is not looked for again. */
function closingRun(text, from, fence, missing) {
  if (missing.has(fence)) return -1;
  for (let i = text.indexOf("`", from); i >= 0;) {
    const run = runAt(text, i);
    if (run === fence) return i;
    i = text.indexOf("`", i + run.length);
  }
  missing.add(fence);
  return -1;
}

function linkAt(text, i) {
  const match = matchAt(LINK, text, i);
  if (!match) return null;
  const [all, label, address] = match;
  const words = label || address;
  return { nodes: [webLink(address, words) ?? words], end: i + all.length };
}

function addressAt(text, i) {
  if (i && /\w/.test(text[i - 1])) return null;
  const match = matchAt(ADDRESS, text, i);
  if (!match) return null;
  let address = match[0].replace(/[.,:;!?'*_~\]]+$/, "");
  if (address.endsWith(")") && !address.includes("(")) address = address.slice(0, -1);
  const link = webLink(address, address);
  return link && { nodes: [link], end: i + address.length };
}

function bracketedAddressAt(text, i) {
  const match = matchAt(BRACKETED, text, i);
  const link = match && webLink(match[1], match[1]);
  return link && { nodes: [link], end: i + match[0].length };
}

function webLink(address, words) {
  if (!/^https?:\/\//i.test(address) || !URL.canParse(address)) return null;
  return {
    tag: "a",
    attributes: { href: new URL(address).href, target: "_blank", rel: "noopener noreferrer nofollow" },
    children: [words],
  };
}

const EMPHASIS = { "**": "strong", __: "strong", "*": "em", _: "em", "~~": "del" };

function emphasisAt(stretch, i, markers, depth, missing) {
  const { text } = stretch;
  const run = runAt(text, i);
  const mark = run.length >= 2 ? run.slice(0, 2) : run;
  const tag = EMPHASIS[mark];
  const from = i + mark.length;
  const opens =
    tag && text[from] !== undefined && !/\s/.test(text[from]) && !(mark[0] === "_" && isWord(text[i - 1]));
  const end = opens ? closingMark(text, from, mark, missing) : -1;
  if (end < 0) return { nodes: [run], end: i + run.length };
  return {
    nodes: [{ tag, children: parseInline(sub(stretch, from, end), markers, depth + 1) }],
    end: end + mark.length,
  };
}

const isWord = (character) => character !== undefined && /[\p{L}\p{N}]/u.test(character);

function closingMark(text, from, mark, missing) {
  if (missing.has(mark)) return -1;
  for (let i = from; i < text.length; i += 1) {
    if (text[i] === "\\") i += 1;
    else if (text[i] === "`") {
      const fence = runAt(text, i);
      const end = closingRun(text, i + fence.length, fence, missing);
      i = (end < 0 ? i : end) + fence.length - 1;
    } else if (text[i] === mark[0]) {
      const run = runAt(text, i);
      const closes = !/\s/.test(text[i - 1]) && !(mark[0] === "_" && isWord(text[i + run.length]));
      // Of `***` the inner mark closes first; a single mark is not half of a double one.
      if (closes && i > from && (run.length === mark.length || run.length === 3))
        return i + run.length - mark.length;
      i += run.length - 1;
    }
  }
  missing.add(mark);
  return -1;
}
