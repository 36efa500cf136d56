/** A view of an indexed document, with the passage that an answer rests on highlighted. */

import { button, el, icon } from "./dom.js";
import { errorWords } from "./error-words.js";
import { utf16Index } from "./answering.js";
import { placeName, plain, quoteAddress } from "./links.js";

/**
 * The dialog at `/?document=…&chunk=…`. A plain click on a link with `data-document` opens it in this page;
 * the same address opens in a tab of its own, and Back closes it.
 */
export class DocumentView {
  /** `moved` is called when the view opens or closes, with the document's title or null. */
  constructor(dialog, server, moved) {
    this.dialog = dialog;
    this.server = server;
    this.moved = moved;
    this.request = 0;
    document.addEventListener("click", (event) => this.clicked(event));
    dialog.addEventListener("close", () => this.closed());
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  }

  clicked(event) {
    const link = event.target.closest?.("a[data-document]");
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    const query = new URLSearchParams(location.search);
    for (const [key, value] of new URL(link.href).searchParams) query.set(key, value);
    history.pushState({ openedHere: true }, "", `/?${query}`);
    this.follow();
  }

  /** Show what the address says: a document, or none. */
  follow() {
    const query = new URLSearchParams(location.search);
    const uri = query.get("document");
    if (uri) this.open(uri, query.get("chunk"), query.get("quote") ?? "");
    else if (this.dialog.open) this.dialog.close();
  }

  async open(uri, chunk, quote) {
    this.request += 1;
    const { request } = this;
    this.frame(
      { uri, title: uri },
      el("p", { class: "document-state", role: "status", say: "documentLoading" }),
    );
    if (!this.dialog.open) this.dialog.showModal();
    try {
      const found = await this.server.document(uri, chunk);
      if (request === this.request) this.show(uri, quote, found);
    } catch (error) {
      if (request !== this.request) return;
      const values = {
        get message() {
          return errorWords(error);
        },
      };
      const again = button("retry", "retry", () => this.open(uri, chunk, quote), {
        className: "quiet-button strong",
      });
      this.frame(
        { uri, title: uri },
        el(
          "div",
          { class: "document-state", role: "alert" },
          el("p", { say: "documentFailed", says: values }),
          again,
        ),
      );
    }
  }

  show(uri, quote, { title, lang, text, start, end, url }) {
    const words = String(text ?? "");
    const known = Number.isInteger(start) && Number.isInteger(end);
    const from = known ? utf16Index(words, start) : 0;
    const to = known ? utf16Index(words, end) : 0;
    const body = el("div", { class: "document-text", dir: "auto", tabindex: "0" });
    if (typeof lang === "string" && /^[A-Za-z-]{2,35}$/.test(lang)) body.setAttribute("lang", lang);
    const passage = to > from ? highlight(words.slice(from, to), quote) : null;
    body.append(words.slice(0, from), ...(passage ? [passage] : []), words.slice(to));
    this.frame({ uri, url, title: title || uri, quote }, body);
    this.moved(plain(title || uri));
    passage?.scrollIntoView({ block: "center" });
    body.focus({ preventScroll: true });
  }

  frame({ uri, url, title, quote }, content) {
    const original = quoteAddress(url ?? uri, quote ?? "");
    const close = button("close", "close", () => this.dialog.close(), {
      words: false,
      className: "icon-button",
    });
    const head = el(
      "header",
      { class: "document-head" },
      el(
        "div",
        { class: "document-name" },
        el("h2", { id: "document-title", dir: "auto" }, plain(title)),
        el(
          "p",
          { class: "source-foot" },
          el("span", { say: "documentIndexed" }),
          el("bdi", { class: "place" }, placeName(uri)),
          original &&
            el(
              "a",
              { href: original, target: "_blank", rel: "noopener noreferrer" },
              el("span", { say: "documentOpen" }),
              icon("external"),
            ),
        ),
      ),
      close,
    );
    this.dialog.replaceChildren(head, content);
  }

  closed() {
    this.request += 1;
    this.dialog.replaceChildren();
    const query = new URLSearchParams(location.search);
    if (query.has("document")) {
      for (const key of ["document", "chunk", "quote"]) query.delete(key);
      if (history.state?.openedHere) history.back();
      else history.replaceState(null, "", `/${query.size ? `?${query}` : ""}`);
    }
    this.moved(null);
  }
}

/** The passage, and in it the quote where it is found word for word. */
function highlight(passage, quote) {
  const mark = el("mark", { class: "passage" });
  const at = quote ? passage.indexOf(quote) : -1;
  if (at < 0) mark.append(passage);
  else mark.append(passage.slice(0, at), el("strong", {}, quote), passage.slice(at + quote.length));
  return mark;
}
