/** Shows a tree of values from `markdown.js` in an element, changing only what is not there yet. */

import { el, setAttribute } from "./dom.js";

const shown = new WeakMap();

/**
 * Make the children of `parent` those that `nodes` describe. Finished parts stay the very elements they were:
 * nothing flickers, and a selection, the focus or a pointed-at marker survives. `makeMarker` makes a citation's
 * element.
 */
export function render(parent, nodes, makeMarker) {
  nodes.forEach((node, position) => {
    const old = parent.childNodes[position];
    if (old && fits(old, node)) refresh(old, node, makeMarker);
    else if (old) old.replaceWith(build(node, makeMarker));
    else parent.append(build(node, makeMarker));
  });
  while (parent.childNodes.length > nodes.length) parent.lastChild.remove();
}

function identity(node) {
  if (typeof node === "string") return "text";
  if (node.marker) return `marker ${node.marker.start} ${node.marker.number} ${node.marker.chunkId}`;
  return node.tag;
}

function fits(element, node) {
  return shown.get(element) === identity(node);
}

function build(node, makeMarker) {
  let made;
  if (typeof node === "string") made = document.createTextNode(node);
  else if (node.marker) made = makeMarker(node.marker);
  else {
    made = el(node.tag, node.attributes);
    render(made, node.children ?? [], makeMarker);
  }
  shown.set(made, identity(node));
  return made;
}

function refresh(element, node, makeMarker) {
  if (typeof node === "string") {
    // Appending keeps a selection that setting would drop.
    if (node === element.data) return;
    if (node.startsWith(element.data)) element.appendData(node.slice(element.data.length));
    else element.data = node;
  } else if (!node.marker) {
    for (const [name, value] of Object.entries(node.attributes ?? {})) {
      if (element.getAttribute(name) !== value) setAttribute(element, name, value);
    }
    render(element, node.children ?? [], makeMarker);
  }
}
