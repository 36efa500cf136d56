/** One turn as it is shown: the question, the answer as it is written, and what belongs to it. */

import { button, el, icon } from "./dom.js";
import { errorKey } from "./error-words.js";
import { Feedback, traceButton } from "./feedback.js";
import { plain, webAddress } from "./links.js";
import { parseMarkdown } from "./markdown.js";
import { hush, say, text } from "./messages.js";
import { render } from "./render.js";
import { gatherSources, markerLink, sourcesSection } from "./sources.js";

/** Shows a turn and follows its answer. `context`: server, about (a function), retry(turn), saved(turn). */
export class AnswerView {
  constructor(turn, context) {
    this.turn = turn;
    this.context = context;
    this.frame = 0;
    this.countdown = 0;
    this.body = el("div", { class: "answer-text", dir: "auto" });
    this.before = el("div", { class: "answer-before" });
    this.after = el("div", { class: "answer-after" });
    this.section = el("section", { class: "answer", label: "answer" }, this.before, this.body, this.after);
    this.element = el(
      "li",
      { class: "turn" },
      el("h2", { class: "question", dir: "auto" }, turn.question),
      this.section,
    );
    markLanguage(this.element.firstChild, turn.question);
    this.show();
  }

  /** Show the answer as it is now, at the next frame: however fast it comes, it is drawn once a frame. */
  update() {
    if (this.turn.answer.status !== "writing") {
      cancelAnimationFrame(this.frame);
      this.frame = 0;
      this.show();
    } else if (!this.frame) {
      this.frame = requestAnimationFrame(() => {
        this.frame = 0;
        this.showText();
        this.context.grew({ follow: true });
      });
    }
  }

  /** The source of a marker in this answer, for the popover. */
  lookUp(marker) {
    const number = Number(marker.dataset.number);
    const start = Number(marker.dataset.start);
    const citation = this.turn.answer.citations.find((one) => one.number === number && one.start === start);
    if (!citation) return null;
    const source = this.turn.answer.outputs?.sources.find((one) => one.number === number);
    return {
      number,
      uri: citation.uri,
      title: citation.title,
      quote: citation.quote || source?.snippet,
      score: source?.score ?? null,
    };
  }

  show() {
    const { answer } = this.turn;
    clearInterval(this.countdown);
    this.section.setAttribute("aria-busy", String(answer.status === "writing"));
    this.element.dataset.status = answer.status;
    this.showText();
    this.before.replaceChildren(...this.banners());
    this.after.replaceChildren(...(answer.status === "writing" ? [] : this.foot()));
    // The sources of a finished answer must not push its first line out of sight.
    this.context.grew({ follow: answer.status !== "done" });
  }

  showText() {
    const { answer } = this.turn;
    const writing = answer.status === "writing";
    if (writing && !answer.text) {
      const search = answer.searching
        ? { say: "searchingFor", says: { query: plain(answer.searching) } }
        : { say: "searching" };
      this.body.replaceChildren(
        el(
          "p",
          { class: "searching" },
          el("span", { class: "dots" }, el("i"), el("i"), el("i")),
          el("span", { dir: "auto", ...search }),
        ),
      );
      return;
    }
    this.body.querySelector(":scope > .searching")?.remove();
    render(this.body, parseMarkdown(answer.text, answer.citations), (citation) => {
      const link = markerLink(citation);
      link.dataset.start = citation.start;
      return link;
    });
    markLanguage(this.body, answer.text, this.context.about()?.languages);
  }

  banners() {
    const { outputs } = this.turn.answer;
    const banners = [];
    if (outputs?.fallback_reason)
      banners.push(banner("warning", "fallback", { reason: plain(outputs.fallback_reason) }));
    if (outputs?.abstained) banners.push(banner("info", "abstained"));
    return banners;
  }

  foot() {
    const { answer } = this.turn;
    const parts = [];
    if (answer.status === "stopped") parts.push(this.stopped());
    if (answer.status === "failed") parts.push(this.failed());
    const sources = sourcesSection(answer);
    if (sources) parts.push(sources);
    if (answer.text) parts.push(...this.actions());
    return parts;
  }

  stopped() {
    const key = this.turn.answer.text ? "stopped" : "stoppedEmpty";
    return el(
      "div",
      { class: "ending" },
      icon("stop"),
      el("p", { say: key }),
      button("retry", "askAgain", () => this.context.retry(this.turn), { className: "quiet-button strong" }),
    );
  }

  failed() {
    const { error, text: said } = this.turn.answer;
    const key = errorKey(error ?? { kind: "unreadable" });
    const again = button("retry", "retry", () => this.context.retry(this.turn), {
      className: "quiet-button strong",
    });
    if (error?.retryAfterS) this.wait(again, error.retryAfterS);
    return el(
      "div",
      { class: "ending failure", role: "alert" },
      icon("warning"),
      el(
        "div",
        {},
        el("p", { class: "failure-title", say: said ? "errorMidway" : "errorTitle" }),
        key && el("p", { say: key }),
        error?.message && el("p", { class: "failure-message", dir: "auto" }, plain(error.message)),
        error?.requestId &&
          el("p", { class: "help", say: "requestId", says: { id: plain(error.requestId) } }),
      ),
      again,
    );
  }

  /** Count the seconds down that the server asked to wait. */
  wait(again, seconds) {
    const words = again.querySelector("span");
    const until = Date.now() + seconds * 1000;
    const tick = () => {
      const left = Math.ceil((until - Date.now()) / 1000);
      again.disabled = left > 0;
      if (left > 0) say(words, "retryIn", { seconds: left });
      else {
        say(words, "retry");
        clearInterval(this.countdown);
      }
    };
    this.countdown = setInterval(tick, 500);
    tick();
  }

  actions() {
    const { answer } = this.turn;
    const state = el("span", { class: "action-state", role: "status" });
    const row = el("div", { class: "actions" }, this.copyButton(state));
    const rows = [row];
    if (answer.traceId && this.context.about()?.tracing) {
      const feedback = new Feedback(this.context.server, answer, () => this.context.saved(this.turn));
      row.prepend(feedback.thumbs);
      row.append(traceButton(this.context.server, answer, state));
      rows.push(feedback.comment);
    }
    row.append(state, ...this.made());
    return rows;
  }

  /** Who answered, for what search, in what time. */
  made() {
    const { answer, question } = this.turn;
    if (!answer.outputs) return [];
    const { reader, timings_ms: timings, query, dropped_markers: dropped } = answer.outputs;
    const words = el("p", { class: "made" }, readerName(reader));
    const times = Object.fromEntries(Object.entries(timings).map(([stage, ms]) => [stage, shownTime(ms)]));
    if (times.retrieve || times.read) words.append(el("span", { say: "timings", says: times }));
    if (dropped) words.append(el("span", { say: "dropped", says: { count: dropped } }));
    if (query && query !== question)
      words.append(
        el("span", {
          class: "searched",
          dir: "auto",
          say: "searchedFor",
          says: { query: plain(query.replaceAll("\n", " · ")) },
        }),
      );
    return [words];
  }

  copyButton(state) {
    const node = button("copy", "copy", async () => {
      const copied = await copyText(asMarkdown(this.turn.answer));
      say(state, copied ? "copied" : "copyFailed");
      setTimeout(() => hush(state), 2500);
    });
    return node;
  }
}

/** The reader's name: the extractive one is called what it is. */
export function readerName(reader) {
  if (reader === "extractive") return el("span", { class: "reader-name", say: "readerExtractive" });
  return el("bdi", { class: "reader-name", translate: "no" }, plain(reader));
}

/** An answer with its sources as Markdown, to paste elsewhere. */
export function asMarkdown(answer) {
  const { cited } = gatherSources(answer);
  const lines = cited.map(({ number, title, uri, url }) => {
    const address = webAddress(url);
    const name = plain(title || uri).replace(/[\\[\]`*_<]/g, "\\$&");
    return address
      ? `- [${number}] [${name}](<${address.href}>)`
      : `- [${number}] ${name} (\`${plain(uri).replaceAll("`", "'")}\`)`;
  });
  return lines.length
    ? `${answer.text}\n\n${text("sourcesHeading")}\n\n${lines.join("\n")}\n`
    : `${answer.text}\n`;
}

async function copyText(words) {
  try {
    await navigator.clipboard.writeText(words);
    return true;
  } catch {
    // Without https there is no clipboard to write to, but a selection can be copied.
    const field = el("textarea", { class: "visually-hidden" });
    field.value = words;
    document.body.append(field);
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    return copied;
  }
}

/** Kana tell Japanese. Otherwise the language is known only when the documents have one other. */
function markLanguage(node, words, languages = []) {
  const others = languages.filter((tag) => tag !== "ja");
  const known = /[\u3040-\u30ff]/.test(words) ? "ja" : others.length === 1 ? others[0] : "";
  if (node.getAttribute("lang") !== known) node.setAttribute("lang", known);
}

function banner(kind, key, values) {
  return el(
    "div",
    { class: `banner ${kind}`, role: "note" },
    icon(kind),
    el("p", { dir: "auto", say: key, says: values }),
  );
}

function shownTime(ms) {
  if (ms < 0.5) return "";
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}
