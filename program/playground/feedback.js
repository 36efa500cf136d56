/** Thumbs and a comment on an answer, kept on its trace; and the way to that trace. */

import { button, el } from "./dom.js";
import { errorWords } from "./error-words.js";
import { webAddress } from "./links.js";
import { hush, say, sayAttribute, text } from "./messages.js";

const PAUSES_MS = [600, 1800];

/** `thumbs` and `comment` are the elements to place; `changed` is called when something was saved. */
export class Feedback {
  constructor(server, answer, changed) {
    this.server = server;
    this.answer = answer;
    this.changed = changed;
    this.wanted = null;
    this.sending = false;
    this.good = button("good", "good", () => this.give(true), {
      words: false,
      className: "icon-button thumb",
    });
    this.bad = button("bad", "bad", () => this.give(false), { words: false, className: "icon-button thumb" });
    this.thumbs = el("span", { class: "thumbs", role: "group", label: "feedback" }, this.good, this.bad);
    this.words = el("textarea", { rows: "2", maxlength: "5000", dir: "auto", label: "comment" });
    sayAttribute(this.words, "placeholder", "comment");
    this.words.value = answer.feedback?.comment ?? "";
    this.state = el("p", { class: "feedback-state", role: "status" });
    this.again = button("retry", "retry", () => this.send(), { className: "quiet-button strong" });
    this.submit = el("button", { type: "submit", class: "quiet-button strong", say: "sendComment" });
    this.comment = el(
      "form",
      { class: "comment", hidden: true },
      this.words,
      el("div", { class: "comment-foot" }, this.state, this.again, this.submit),
    );
    this.comment.addEventListener("submit", (event) => {
      event.preventDefault();
      this.give((this.wanted ?? this.answer.feedback).value);
    });
    this.again.hidden = true;
    this.showThumbs();
  }

  /** Take a thumb, with the comment as it is written. Given again it can be changed at any time. */
  give(value) {
    this.wanted = { value, comment: this.words.value.trim() };
    this.comment.hidden = false;
    this.showThumbs();
    this.send();
  }

  /** Send what is wanted; what is wanted meanwhile is sent after it. */
  async send() {
    if (this.sending) return;
    this.sending = true;
    this.again.hidden = true;
    say(this.state, "feedbackSending");
    this.state.classList.remove("problem");
    try {
      while (this.wanted) {
        const sent = this.wanted;
        await this.post(sent);
        if (this.wanted === sent) this.wanted = null;
      }
      say(this.state, "feedbackSaved");
    } catch (error) {
      say(this.state, "feedbackFailed", {
        get message() {
          return errorWords(error);
        },
      });
      this.state.classList.add("problem");
      this.again.hidden = false;
    } finally {
      this.sending = false;
      this.showThumbs();
    }
  }

  async post({ value, comment }) {
    const previous = this.answer.feedback?.assessmentId;
    const body = {
      trace_id: this.answer.traceId,
      value,
      comment: comment || null,
      ...(previous && { assessment_id: previous }),
    };
    const { assessment_id: id } = await persistently(() => this.server.feedback(body));
    this.answer.feedback = { value, comment, assessmentId: typeof id === "string" ? id : null };
    this.changed();
  }

  showThumbs() {
    const shown = this.wanted ?? this.answer.feedback;
    this.good.setAttribute("aria-pressed", String(shown?.value === true));
    this.bad.setAttribute("aria-pressed", String(shown?.value === false));
  }
}

/** Try again, after a pause, what failed for a reason that may pass. */
async function persistently(attempt) {
  for (const pause of PAUSES_MS) {
    try {
      return await attempt();
    } catch (error) {
      if (error.kind !== "network" && error.status !== 503) throw error;
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }
  return attempt();
}

/** A button that opens an answer's trace in a new tab; `state` is where it says what went wrong. */
export function traceButton(server, answer, state) {
  const open = async () => {
    // The tab is opened now, in the click: later the browser would block it. It waits empty for its address.
    const tab = window.open("", "_blank");
    if (tab) {
      tab.opener = null;
      tab.document.title = text("traceOpening");
      tab.document.body.textContent = text("traceOpening");
    }
    node.disabled = true;
    say(state, "traceOpening");
    try {
      const { url } = await server.traceLink(answer.traceId);
      const address = webAddress(url);
      if (!address) throw new Error(text("errorUnreadable"));
      hush(state);
      if (tab && !tab.closed) tab.location.replace(address.href);
      else {
        say(state, "traceBlocked");
        state.append(
          " ",
          el("a", { href: address.href, target: "_blank", rel: "noopener noreferrer", say: "traceOpen" }),
        );
      }
    } catch (error) {
      tab?.close();
      say(state, "traceFailed", {
        get message() {
          return errorWords(error);
        },
      });
    } finally {
      node.disabled = false;
    }
  };
  const node = button("trace", "trace", open);
  sayAttribute(node, "title", "traceTitle");
  return node;
}
