/** What shows at a marker that is pointed at or focused: title, quote and score of its source. */

import { el } from "./dom.js";
import { placeName, plain } from "./links.js";
import { quoteWords, shownScore } from "./sources.js";

const GAP = 8;
const LEAVE_MS = 180;

export class SourcePopover {
  /** `lookUp(marker)` finds the marker's source: `{number, uri, title, score, quote}`, or null. */
  constructor(element, lookUp) {
    this.element = element;
    this.lookUp = lookUp;
    this.marker = null;
    this.leaving = 0;
    document.addEventListener("pointerover", (event) => this.pointed(event));
    document.addEventListener("focusin", (event) => this.focused(event));
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.escape(event), true);
    window.addEventListener("scroll", () => this.marker && this.place(), { passive: true, capture: true });
    window.addEventListener("resize", () => this.hide());
  }

  pointed(event) {
    if (event.pointerType === "touch") return;
    const marker = event.target.closest?.(".marker");
    if (marker) this.show(marker);
    else if (this.element.contains(event.target)) this.stay();
    else this.leave();
  }

  focused(event) {
    const marker = event.target.closest?.(".marker");
    if (marker?.matches(":focus-visible")) this.show(marker);
    else if (!marker) this.hide();
  }

  /** The first Escape closes this, and nothing else that is open. */
  escape(event) {
    if (!this.marker) return;
    event.stopPropagation();
    event.preventDefault();
    this.hide();
  }

  show(marker) {
    this.stay();
    if (this.marker === marker) return;
    const source = this.lookUp(marker);
    if (!source) return;
    this.marker = marker;
    this.element.replaceChildren(...contents(source));
    this.element.hidden = false;
    this.place();
  }

  stay() {
    clearTimeout(this.leaving);
    this.leaving = 0;
  }

  leave() {
    if (!this.marker || this.leaving || this.marker.matches(":focus-visible")) return;
    this.leaving = setTimeout(() => this.hide(), LEAVE_MS);
  }

  hide() {
    this.stay();
    this.marker = null;
    this.element.hidden = true;
  }

  place() {
    if (!this.marker.isConnected) {
      this.hide();
      return;
    }
    const at = this.marker.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.element;
    const left = Math.min(Math.max(GAP, at.left + at.width / 2 - width / 2), innerWidth - width - GAP);
    const above = at.top - height - GAP;
    const ceiling = document.querySelector(".bar").offsetHeight;
    this.element.style.left = `${Math.max(GAP, left)}px`;
    this.element.style.top = `${above >= ceiling ? above : Math.min(at.bottom + GAP, innerHeight - height - GAP)}px`;
  }
}

function contents({ number, uri, title, score, quote }) {
  const head = el(
    "p",
    { class: "popover-title" },
    el("span", { class: "source-number" }, String(number)),
    el("bdi", {}, plain(title || uri)),
  );
  const foot = el(
    "p",
    { class: "source-foot" },
    el("bdi", { class: "place" }, placeName(uri)),
    score === null ? null : el("span", { say: "score", says: { score: shownScore(score) } }),
  );
  return [
    head,
    quote && el("blockquote", { class: "quote", dir: "auto" }, ...quoteWords(quote)),
    foot,
  ].filter(Boolean);
}
