/** The list of conversations in the sidebar: open, rename, delete. */

import { button, el } from "./dom.js";
import { plain } from "./links.js";

/** `actions`: open(id), rename(id, title), remove(id). Titles are what people typed: plain text. */
export class ConversationList {
  constructor(list, actions) {
    this.list = list;
    this.actions = actions;
    this.renaming = null;
  }

  show(conversations, openId) {
    if (this.renaming) return;
    const focused = this.list.contains(document.activeElement) ? document.activeElement.dataset : null;
    const items = conversations.map((conversation) => this.item(conversation, conversation.id === openId));
    this.list.replaceChildren(
      ...(items.length ? items : [el("li", { class: "none", say: "noConversations" })]),
    );
    if (focused?.id)
      this.list
        .querySelector(`[data-id="${CSS.escape(focused.id)}"][data-act="${CSS.escape(focused.act)}"]`)
        ?.focus();
  }

  item(conversation, open) {
    const title = plain(conversation.title) || "…";
    const link = el(
      "a",
      {
        href: `/?conversation=${encodeURIComponent(conversation.id)}`,
        class: "conversation-link",
        dir: "auto",
        title,
      },
      title,
    );
    if (open) link.setAttribute("aria-current", "page");
    link.addEventListener("click", (event) => {
      if (event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      this.actions.open(conversation.id);
    });
    const item = el("li", { class: "conversation-item" }, link);
    const small = { words: false, says: { title }, className: "icon-button small" };
    const rename = button("edit", "rename", () => this.rename(item, conversation), small);
    const remove = button("trash", "remove", () => this.actions.remove(conversation.id), small);
    for (const [node, act] of [
      [link, "open"],
      [rename, "rename"],
      [remove, "remove"],
    ])
      Object.assign(node.dataset, { id: conversation.id, act });
    item.append(el("span", { class: "conversation-actions" }, rename, remove));
    return item;
  }

  /** Enter keeps the new title, Escape the old one; an empty title is none. */
  rename(item, conversation) {
    const field = el("input", {
      type: "text",
      class: "rename",
      maxlength: "200",
      dir: "auto",
      label: "renameField",
    });
    field.value = conversation.title;
    const finish = (keep) => {
      if (this.renaming !== field) return;
      this.renaming = null;
      this.actions.rename(
        conversation.id,
        keep && field.value.trim() ? field.value.trim() : conversation.title,
      );
      this.list.querySelector(`[data-id="${CSS.escape(conversation.id)}"][data-act="rename"]`)?.focus();
    };
    field.addEventListener("keydown", (event) => {
      if (event.isComposing || event.keyCode === 229) return;
      if (event.key === "Enter") finish(true);
      if (event.key === "Escape") {
        event.stopPropagation();
        finish(false);
      }
    });
    field.addEventListener("blur", () => finish(true));
    this.renaming = field;
    item.replaceChildren(field);
    field.focus();
    field.select();
  }
}
