/** What a failure is called in the language of the page: which text, and the server's own words beside it. */

import { text } from "./messages.js";

const OWN_WORDS = {
  network: "errorNetwork",
  cutOff: "errorCutOff",
  unreadable: "errorUnreadable",
  busy: "errorBusy",
  token: "errorToken",
};

/** The key of the page's own text for an error, or null when the server's message says it all. */
export function errorKey(error) {
  return OWN_WORDS[error.kind] ?? null;
}

/** One line about an error. */
export function errorWords(error) {
  const key = errorKey(error);
  if (key && error.kind !== "busy") return text(key);
  return error.message || text(key ?? "errorUnreadable");
}
