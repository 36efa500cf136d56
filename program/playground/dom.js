/** The one place where elements are made. Text goes in as text, so nothing untrusted can become markup. */

import { say, sayAttribute } from "./messages.js";

const SVG = "http://www.w3.org/2000/svg";
const ATTRIBUTES = new Set(
  (
    "alt aria-busy aria-controls aria-describedby aria-expanded aria-invalid aria-label aria-labelledby aria-pressed " +
    "autocomplete class dir disabled for hidden href id inputmode lang max maxlength min name open placeholder rel role rows " +
    "scope spellcheck start tabindex target title translate type value"
  ).split(" "),
);

/**
 * An element with attributes and children (elements or text).
 *
 * `say`, `says` (values) and `label` name texts of the page; `on` holds listeners. A link can only lead to the
 * web or into this page; any other attribute or address is a programming error.
 */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "say") say(node, value, properties.says);
    else if (name === "label") sayAttribute(node, "aria-label", value, properties.says);
    else if (name === "on")
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else if (name !== "says") setAttribute(node, name, value);
  }
  node.append(...children.filter((child) => child !== undefined && child !== null && child !== false));
  return node;
}

/** Set an attribute from the list of harmless ones. */
export function setAttribute(node, name, value) {
  if (!ATTRIBUTES.has(name)) throw new Error(`no attribute '${name}' is set by this page`);
  if (name === "href" && !/^(https?:\/\/|\/(?![/\\])|#)/i.test(value))
    throw new Error("not an address to link to");
  node.setAttribute(name, value === true ? "" : value);
}

const DRAWINGS = {
  menu: ["M4 7h16M4 12h16M4 17h16"],
  close: ["M6 6l12 12M18 6L6 18"],
  plus: ["M12 5v14M5 12h14"],
  send: ["M12 19V5M6 11l6-6 6 6"],
  stop: ["M7 7h10v10H7z"],
  down: ["M12 5v14M6 13l6 6 6-6"],
  copy: ["M9 9h10v11H9z", "M15 9V4H5v11h4"],
  good: ["M7 11v9H4v-9zM7 11l4-7c1.5 0 2.4 1.2 2 2.8L12.4 10H18a2 2 0 0 1 2 2.4l-1.2 6A2 2 0 0 1 16.8 20H7"],
  bad: ["M7 13V4H4v9zM7 13l4 7c1.5 0 2.4-1.2 2-2.8L12.4 14H18a2 2 0 0 0 2-2.4l-1.2-6A2 2 0 0 0 16.8 4H7"],
  trace: ["M4 6h9M8 12h12M12 18h6"],
  retry: ["M19 12a7 7 0 1 1-2.2-5.1L19 9M19 4v5h-5"],
  edit: ["M5 19l1-4L16 5l3 3L9 18z"],
  trash: ["M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13"],
  external: ["M14 5h5v5M19 5l-8 8M11 6H5v13h13v-6"],
  document: ["M6 3h8l4 4v14H6zM14 3v4h4", "M9 12h6M9 16h6"],
  sun: [
    "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8",
    "M12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.4 1.4M17.6 17.6L19 19M19 5l-1.4 1.4M6.4 17.6L5 19",
  ],
  moon: ["M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5z"],
  auto: ["M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16", "M12 4v16M12 8h4M12 12h7.5M12 16h4"],
  warning: ["M12 4l9 16H3z", "M12 10v4M12 17v.5"],
  info: ["M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16", "M12 11v5M12 8v.5"],
};

/** A drawing of 24 × 24 in the colour of the text, silent to screen readers. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", `icon icon-${name}`);
  for (const drawing of DRAWINGS[name]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", drawing);
    svg.append(path);
  }
  return svg;
}

/** A button with an icon, words, or both. `words` false: the words are its accessible name only. */
export function button(
  iconName,
  key,
  click,
  { words = true, says, className = "quiet-button", ...more } = {},
) {
  const node = el("button", { type: "button", class: className, on: { click }, ...more });
  if (iconName) node.append(icon(iconName));
  if (words) node.append(el("span", { say: key, says }));
  else {
    sayAttribute(node, "aria-label", key, says);
    sayAttribute(node, "title", key, says);
  }
  return node;
}
