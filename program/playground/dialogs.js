/** Short questions to the person: the token, a confirmation; and notices that pass. */

import { button, el } from "./dom.js";
import { say } from "./messages.js";

const NOTICE_MS = 12_000;

/** The token that the person types, or null. `rejected` says that the one before was refused. */
export function askForToken(rejected) {
  const field = el("input", { id: "token", type: "password", autocomplete: "off", spellcheck: "false" });
  return ask("token-dialog", (close) => {
    const form = el(
      "form",
      {},
      el("h2", { id: "token-title", say: "tokenTitle" }),
      rejected && el("p", { class: "problem", role: "alert", say: "tokenRejected" }),
      el("label", { for: "token", say: "tokenField" }),
      field,
      el("p", { class: "help", say: "tokenHelp" }),
      el(
        "div",
        { class: "dialog-foot" },
        button(null, "cancel", () => close(null)),
        el("button", { type: "submit", class: "primary-button", say: "tokenSend" }),
      ),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (field.value.trim()) close(field.value.trim());
    });
    return form;
  });
}

/** Whether the person wants it. */
export async function confirm(title, words, values, action) {
  const answer = await ask("confirm-dialog", (close) => [
    el("h2", { id: "confirm-title", say: title }),
    el("p", { say: words, says: values }),
    el(
      "div",
      { class: "dialog-foot" },
      button(null, "cancel", () => close(null)),
      button(null, action, () => close(true), { className: "primary-button danger" }),
    ),
  ]);
  return answer === true;
}

/** Show a modal dialog; what `close` is called with, or null when it is dismissed. */
function ask(id, build) {
  const dialog = document.getElementById(id);
  return new Promise((resolve) => {
    let answer = null;
    const close = (given) => {
      answer = given;
      dialog.close();
    };
    dialog.replaceChildren(...[build(close)].flat());
    dialog.addEventListener("close", () => resolve(answer), { once: true });
    dialog.showModal();
  });
}

/** A notice at the bottom, with one thing to do about it; it goes by itself, but not while it is used. */
export function notify(key, values, action) {
  const notices = document.getElementById("notices");
  const notice = el("div", { class: "notice" });
  const go = () => notice.remove();
  let timer = setTimeout(go, NOTICE_MS);
  const stay = () => clearTimeout(timer);
  const leave = () => {
    stay();
    timer = setTimeout(go, NOTICE_MS);
  };
  for (const event of ["pointerenter", "focusin"]) notice.addEventListener(event, stay);
  for (const event of ["pointerleave", "focusout"]) notice.addEventListener(event, leave);
  notice.append(say(el("span", { dir: "auto" }), key, values));
  if (action) {
    const act = () => {
      go();
      action.act();
    };
    notice.append(button(null, action.key, act, { className: "quiet-button strong" }));
  }
  notice.append(button("close", "dismiss", go, { words: false, className: "icon-button small" }));
  notices.replaceChildren(notice);
  return go;
}
