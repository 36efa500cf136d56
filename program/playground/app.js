/** The page: puts its parts together, and says which conversation is open. */

import { AnswerView, readerName } from "./answer-view.js";
import { emptyAnswer, writeAnswer } from "./answering.js";
import { ConversationList } from "./conversation-list.js";
import { ConversationStore, inputUpTo, newTurn, titleFrom } from "./conversation-store.js";
import { CustomInputsEditor } from "./custom-inputs.js";
import { askForToken, confirm, notify } from "./dialogs.js";
import { DocumentView } from "./document-view.js";
import { el, icon } from "./dom.js";
import { errorWords } from "./error-words.js";
import { plain } from "./links.js";
import { hush, language, say, sayAttribute, speak, speakAsBefore, text } from "./messages.js";
import { SourcePopover } from "./popover.js";
import { Server } from "./server.js";
import { gatherSources } from "./sources.js";

const SAVE_EVERY_MS = 1000;
const NEAR_THE_END = 120;
const NARROW = matchMedia("(max-width: 52rem)");
const THEMES = { auto: ["themeAuto", "auto"], light: ["themeLight", "sun"], dark: ["themeDark", "moon"] };

const byId = (id) => document.getElementById(id);

class Page {
  constructor() {
    this.about = null;
    this.views = new Map();
    this.writing = new Map();
    this.follows = true;
    this.documentTitle = null;
    this.store = new ConversationStore();
    this.server = new Server(askForToken);
    this.list = new ConversationList(byId("conversations"), {
      open: (id) => this.goTo(id),
      rename: (id, title) => this.rename(id, title),
      remove: (id) => this.remove(id),
    });
    this.options = new CustomInputsEditor(byId("options-fields"), byId("options-summary"), (value) =>
      this.keepOptions(value),
    );
    this.document = new DocumentView(byId("document-view"), this.server, (title) => {
      this.documentTitle = title;
      this.showTitle();
    });
    new SourcePopover(byId("source-popover"), (marker) => this.viewOf(marker)?.lookUp(marker));
  }

  /** Show what the address names, and ask the server what there is. */
  start() {
    this.listen();
    this.showTheme();
    this.showLanguage();
    this.showSidebar(false);
    this.followAddress();
    this.document.follow();
    // On a phone this would raise the keyboard over the page.
    if (!NARROW.matches && !byId("document-view").open) byId("question").focus({ preventScroll: true });
    if (this.store.trouble) notify(this.store.trouble);
    return this.meetServer();
  }

  async meetServer() {
    try {
      this.about = await this.server.about();
    } catch (error) {
      notify(
        "aboutFailed",
        {
          get message() {
            return errorWords(error);
          },
        },
        { key: "retry", act: () => this.meetServer() },
      );
      return;
    }
    this.options.know(this.about);
    byId("reader").replaceChildren(
      el("span", { class: "visually-hidden", say: "readerLabel" }),
      readerName(this.about.reader),
    );
    this.showWelcome();
    for (const view of this.views.values()) if (!this.writing.has(this.conversation.id)) view.show();
  }

  listen() {
    const question = byId("question");
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.ask(question.value);
    });
    question.addEventListener("keydown", (event) => {
      // Enter that ends the input of kana is the input method's, not ours; Safari tells it by 229 only.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
      event.preventDefault();
      if (!this.writing.has(this.conversation.id)) this.ask(question.value);
    });
    question.addEventListener("input", () => this.showComposer());
    byId("stop").addEventListener("click", () => this.stop());
    byId("new-conversation").addEventListener("click", () => this.goTo(null));
    byId("delete-all").addEventListener("click", () => this.removeAll());
    byId("language").addEventListener("click", () => {
      speak(language() === "en" ? "ja" : "en", { remember: true });
      this.showLanguage();
      this.options.know(this.about);
    });
    byId("theme").addEventListener("click", () => this.nextTheme());
    byId("open-sidebar").addEventListener("click", () => this.showSidebar(true));
    byId("close-sidebar").addEventListener("click", () => this.showSidebar(false));
    byId("backdrop").addEventListener("click", () => this.showSidebar(false));
    byId("to-end").addEventListener("click", () => this.toEnd());
    NARROW.addEventListener("change", () => this.showSidebar(false));
    document.addEventListener(
      "keydown",
      (event) => event.key === "Escape" && NARROW.matches && this.showSidebar(false),
    );
    window.addEventListener("scroll", () => this.scrolled(), { passive: true });
    window.addEventListener("popstate", () => {
      if (this.addressed() !== (this.conversation.turns.length ? this.conversation.id : null))
        this.followAddress();
      this.document.follow();
    });
    window.addEventListener("pagehide", () => this.saveAll());
    this.store.addEventListener("change", ({ detail }) => this.stored(detail));
    this.store.addEventListener("trouble", ({ detail }) => notify(detail));
  }

  // Asking

  ask(words) {
    const question = words.trim();
    if (!question || this.writing.has(this.conversation.id) || !this.options.ready()) return;
    const turn = newTurn(question);
    const { conversation } = this;
    conversation.turns.push(turn);
    if (!conversation.named && !conversation.title) conversation.title = titleFrom(question);
    byId("question").value = "";
    this.store.save(conversation);
    this.showAddress();
    this.write(conversation, turn);
    this.toEnd();
  }

  retry(turn) {
    const { conversation } = this;
    if (this.writing.has(conversation.id) || !this.options.ready()) return;
    // The old view's answer goes: feedback that is still on its way belongs to the answer it was given for.
    turn.answer = emptyAnswer();
    this.views.get(turn.id)?.element.remove();
    this.views.delete(turn.id);
    this.write(conversation, turn);
    byId("question").focus({ preventScroll: true });
  }

  async write(conversation, turn) {
    const controller = new AbortController();
    this.writing.set(conversation.id, controller);
    this.showConversation();
    announce("beingWritten");
    let savedAt = Date.now();
    const changed = () => {
      turn.changedAt = Date.now();
      if (turn.answer.status === "writing" && turn.changedAt - savedAt < SAVE_EVERY_MS) {
        this.views.get(turn.id)?.update();
        return;
      }
      savedAt = turn.changedAt;
      this.store.save(conversation);
      this.views.get(turn.id)?.update();
    };
    const request = { input: inputUpTo(conversation, turn), context: { conversation_id: conversation.id } };
    if (Object.keys(conversation.customInputs).length) request.custom_inputs = conversation.customInputs;
    await writeAnswer(this.server, request, turn.answer, { signal: controller.signal, changed });
    this.writing.delete(conversation.id);
    this.showComposer();
    if (turn.answer.status === "done")
      announce("complete", { count: gatherSources(turn.answer).cited.length });
    if (turn.answer.status === "stopped") announce("stoppedAnnouncement");
  }

  stop() {
    this.writing.get(this.conversation.id)?.abort();
    byId("question").focus({ preventScroll: true });
  }

  saveAll() {
    for (const id of this.writing.keys()) {
      const conversation = this.store.get(id);
      if (conversation) this.store.save(conversation);
    }
  }

  // Conversations

  addressed() {
    return new URLSearchParams(location.search).get("conversation");
  }

  followAddress() {
    const id = this.addressed();
    this.conversation = (id && this.store.get(id)) || this.store.create();
    this.open();
  }

  goTo(id) {
    this.conversation = (id && this.store.get(id)) || this.store.create();
    history.pushState(null, "", id ? `/?conversation=${encodeURIComponent(id)}` : "/");
    this.open();
    if (NARROW.matches) this.showSidebar(false);
    byId("question").focus({ preventScroll: true });
  }

  open() {
    this.views.clear();
    byId("turns").replaceChildren();
    this.options.show(this.conversation.customInputs);
    this.showConversation();
    this.toEnd();
  }

  rename(id, title) {
    const conversation = this.store.get(id);
    if (!conversation) return;
    if (title !== conversation.title) {
      Object.assign(conversation, { title, named: true });
      this.store.save(conversation);
    }
    this.showList();
    this.showTitle();
  }

  remove(id) {
    const conversation = this.store.get(id);
    this.writing.get(id)?.abort();
    this.store.remove(id);
    if (id === this.conversation.id) this.goTo(null);
    notify(
      "removed",
      { title: plain(conversation.title) },
      {
        key: "undo",
        act: () => {
          this.store.restore(conversation);
          this.goTo(id);
        },
      },
    );
  }

  async removeAll() {
    const count = this.store.all().length;
    if (!count || !(await confirm("confirmDeleteAllTitle", "confirmDeleteAll", { count }, "deleteAll")))
      return;
    for (const controller of this.writing.values()) controller.abort();
    this.store.removeAll();
    this.goTo(null);
  }

  keepOptions(value) {
    this.conversation.customInputs = value;
    if (this.conversation.turns.length) this.store.save(this.conversation);
  }

  /** Storage has another content: because of this tab, or another one. */
  stored(id) {
    if (id === this.conversation.id || id === null) {
      const here = this.store.get(this.conversation.id);
      if (here && here !== this.conversation) this.conversation = here;
      if (!here && this.conversation.turns.length && !this.writing.has(this.conversation.id)) {
        this.conversation = this.store.create();
        this.showAddress();
        this.open();
      }
      this.showConversation();
    }
    this.showList();
  }

  // Showing

  showConversation() {
    const { turns } = this.conversation;
    const list = byId("turns");
    turns.forEach((turn, position) => {
      let view = this.views.get(turn.id);
      if (!view || view.turn !== turn || view.answer !== turn.answer) {
        view?.element.remove();
        view = this.viewFor(turn);
      }
      if (list.children[position] !== view.element)
        list.insertBefore(view.element, list.children[position] ?? null);
    });
    byId("welcome").hidden = turns.length > 0;
    this.showList();
    this.showTitle();
    this.showComposer();
  }

  viewFor(turn) {
    const view = new AnswerView(turn, {
      server: this.server,
      about: () => this.about,
      retry: () => this.retry(turn),
      saved: () => {
        turn.changedAt = Date.now();
        this.store.save(this.conversation);
      },
      grew: ({ follow }) => this.grew(follow),
    });
    view.answer = turn.answer;
    this.views.set(turn.id, view);
    return view;
  }

  viewOf(marker) {
    return [...this.views.values()].find((view) => view.element.contains(marker));
  }

  showList() {
    const conversations = this.store.all();
    this.list.show(conversations, this.conversation.id);
    byId("delete-all").hidden = !conversations.length;
  }

  showTitle() {
    const title = byId("title");
    const { turns, title: words } = this.conversation;
    if (turns.length) {
      hush(title);
      title.textContent = plain(words);
    } else say(title, "newConversation");
    const shown = this.documentTitle ?? (turns.length ? plain(words) : null);
    document.title = shown ? `${shown} · citeqa` : "citeqa";
  }

  showComposer() {
    const question = byId("question");
    const busy = this.writing.has(this.conversation.id);
    const focused = document.activeElement;
    byId("send").hidden = busy;
    byId("stop").hidden = !busy;
    byId("send").disabled = !question.value.trim();
    if (focused === byId("stop") && !busy) question.focus({ preventScroll: true });
    question.style.height = "auto";
    question.style.height = `${Math.min(question.scrollHeight, innerHeight * 0.35)}px`;
  }

  showWelcome() {
    const { index, examples } = this.about;
    if (index) say(byId("welcome-lead"), "welcomeLead", index);
    else say(byId("welcome-lead"), "welcomeLeadUnknown");
    const given = (Array.isArray(examples) ? examples : [])
      .filter((example) => typeof example === "string")
      .slice(0, 6);
    const hints = given.length
      ? [
          el("h3", { say: "tryOne" }),
          el("ul", { class: "examples" }, ...given.map((words) => this.example(words))),
        ]
      : [
          el(
            "ul",
            { class: "hints" },
            ...["hintAsk", "hintSources", "hintFollowUp"].map((key) => el("li", { say: key })),
          ),
        ];
    byId("welcome-hints").replaceChildren(...hints);
  }

  example(words) {
    const node = el("button", { type: "button", class: "example", dir: "auto" }, words);
    node.addEventListener("click", () => this.ask(words));
    return el("li", {}, node);
  }

  showAddress() {
    const { id, turns } = this.conversation;
    history.replaceState(history.state, "", turns.length ? `/?conversation=${encodeURIComponent(id)}` : "/");
  }

  showSidebar(open) {
    const sidebar = byId("sidebar");
    const drawn = NARROW.matches;
    const wasOpen = sidebar.classList.contains("open");
    sidebar.classList.toggle("open", drawn && open);
    sidebar.inert = drawn && !open;
    byId("backdrop").hidden = !(drawn && open);
    byId("open-sidebar").setAttribute("aria-expanded", String(drawn && open));
    document.querySelector(".stage").inert = drawn && open;
    if (drawn && open) byId("close-sidebar").focus();
    else if (drawn && wasOpen) byId("open-sidebar").focus();
  }

  showLanguage() {
    const node = byId("language");
    say(node, "switchLanguage");
    node.lang = language() === "en" ? "ja" : "en";
  }

  nextTheme() {
    const names = Object.keys(THEMES);
    const next = names[(names.indexOf(document.documentElement.dataset.theme ?? "auto") + 1) % names.length];
    if (next === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    try {
      localStorage.setItem("citeqa.theme", next);
    } catch {
      // Not remembered, then.
    }
    this.showTheme();
  }

  showTheme() {
    const [words, drawing] = THEMES[document.documentElement.dataset.theme ?? "auto"];
    const node = byId("theme");
    node.replaceChildren(icon(drawing));
    sayAttribute(node, "aria-label", words);
    sayAttribute(node, "title", words);
  }

  // Following the end

  grew(follow) {
    if (follow && this.follows) this.toEnd();
    else this.scrolled();
  }

  scrolled() {
    const left = document.documentElement.scrollHeight - innerHeight - scrollY;
    this.follows = left < NEAR_THE_END;
    byId("to-end").hidden = this.follows;
  }

  toEnd() {
    this.follows = true;
    byId("to-end").hidden = true;
    window.scrollTo({
      top: this.conversation.turns.length ? document.documentElement.scrollHeight : 0,
      behavior: "instant",
    });
  }
}

function announce(key, values) {
  byId("announcer").textContent = text(key, values);
}

for (const node of document.querySelectorAll("[data-icon]")) node.append(icon(node.dataset.icon));
speakAsBefore();
new Page().start();
