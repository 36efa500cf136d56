/**
 * The conversations, kept in the browser's storage: each under a key of its own, so that two tabs that write
 * different ones never meet, and two that write the same one are merged turn by turn.
 *
 * What storage holds is not trusted: it is read into known shapes, and what does not fit is left out.
 */

import { emptyAnswer, readCitation, readOutputs } from "./answering.js";

const PREFIX = "citeqa.conversation.";
const TITLE_CHARACTERS = 80;

/** Tells `change` (a conversation came, went or changed, here or in another tab) and `trouble` (`detail`: why). */
export class ConversationStore extends EventTarget {
  constructor() {
    super();
    this.storage = openStorage();
    this.conversations = new Map();
    this.gone = new Set();
    for (const [id, words] of storedUnder(this.storage)) {
      const conversation = readConversation(words, id);
      if (conversation) this.conversations.set(id, conversation);
    }
    window.addEventListener("storage", (event) => this.heard(event));
  }

  /** Why nothing is kept, if so: `storageBlocked`. */
  get trouble() {
    return this.storage ? null : "storageBlocked";
  }

  /** Latest first. */
  all() {
    return [...this.conversations.values()].sort((a, b) => b.changedAt - a.changedAt);
  }

  get(id) {
    return this.conversations.get(id) ?? null;
  }

  /** A conversation that is kept once it is saved. */
  create() {
    return { id: newId(), title: "", named: false, changedAt: Date.now(), customInputs: {}, turns: [] };
  }

  /** Keep a conversation, together with what another tab added to it. */
  save(conversation) {
    if (this.gone.has(conversation.id)) return;
    const stored = readConversation(this.read(conversation.id), conversation.id);
    if (stored) mergeTurns(conversation, stored);
    conversation.changedAt = Date.now();
    this.conversations.set(conversation.id, conversation);
    this.write(conversation);
    this.changed(conversation.id);
  }

  remove(id) {
    this.gone.add(id);
    this.conversations.delete(id);
    this.attempt(() => this.storage?.removeItem(PREFIX + id));
    this.changed(id);
  }

  /** Undo a removal. */
  restore(conversation) {
    this.gone.delete(conversation.id);
    this.save(conversation);
  }

  removeAll() {
    for (const id of [...this.conversations.keys()]) this.remove(id);
  }

  /** Another tab wrote, removed, or cleared everything (`key` is null). */
  heard({ key, newValue }) {
    if (key === null) {
      for (const id of this.conversations.keys()) this.conversations.delete(id);
      this.changed(null);
    } else if (key.startsWith(PREFIX)) {
      const id = key.slice(PREFIX.length);
      const theirs = newValue === null ? null : readConversation(newValue, id);
      const mine = this.conversations.get(id);
      if (newValue === null) {
        this.gone.add(id);
        this.conversations.delete(id);
      } else if (theirs) {
        this.gone.delete(id);
        if (mine) mergeConversation(mine, theirs);
        else this.conversations.set(id, theirs);
      }
      this.changed(id);
    }
  }

  changed(id) {
    this.dispatchEvent(new CustomEvent("change", { detail: id }));
  }

  read(id) {
    let words = null;
    this.attempt(() => {
      words = this.storage?.getItem(PREFIX + id) ?? null;
    });
    return words;
  }

  write(conversation) {
    this.attempt(() =>
      this.storage?.setItem(PREFIX + conversation.id, JSON.stringify(asStored(conversation))),
    );
  }

  attempt(access) {
    try {
      access();
    } catch (error) {
      const full = error instanceof DOMException && error.name === "QuotaExceededError";
      this.dispatchEvent(new CustomEvent("trouble", { detail: full ? "storageFull" : "storageBlocked" }));
    }
  }
}

/** A turn whose answer has yet to be written. */
export function newTurn(question) {
  return { id: newId(), question, askedAt: Date.now(), changedAt: Date.now(), answer: emptyAnswer() };
}

/** A conversation's title made of its first question. */
export function titleFrom(question) {
  const line = question.trim().replace(/\s+/g, " ");
  const letters = [...line];
  return letters.length <= TITLE_CHARACTERS ? line : `${letters.slice(0, TITLE_CHARACTERS - 1).join("")}…`;
}

/** The Responses `input` of a conversation up to and with `turn`: turns without an answer are left out. */
export function inputUpTo(conversation, turn, longest = 20) {
  const earlier = conversation.turns
    .slice(0, conversation.turns.indexOf(turn))
    .filter(({ answer }) => answer.text);
  return [
    ...earlier.slice(-longest).flatMap(({ question, answer }) => [
      { role: "user", content: question },
      { role: "assistant", content: answer.text },
    ]),
    { role: "user", content: turn.question },
  ];
}

function mergeConversation(mine, theirs) {
  mergeTurns(mine, theirs);
  if (theirs.changedAt >= mine.changedAt) {
    const { title, named, customInputs, changedAt } = theirs;
    Object.assign(mine, { title, named, customInputs, changedAt });
  }
}

/** Into `mine`, in place: every turn that is only theirs, and theirs of those that they changed later. */
function mergeTurns(mine, theirs) {
  const byId = new Map(mine.turns.map((turn) => [turn.id, turn]));
  for (const turn of theirs.turns) {
    const known = byId.get(turn.id);
    if (!known) mine.turns.push(turn);
    else if (turn.changedAt > known.changedAt) Object.assign(known, turn);
  }
  mine.turns.sort((a, b) => a.askedAt - b.askedAt);
}

/** An answer that is being written is stored as stopped: that is what it is, should this tab be closed. */
function asStored(conversation) {
  const turns = conversation.turns.map((turn) =>
    turn.answer.status === "writing" ? { ...turn, answer: { ...turn.answer, status: "stopped" } } : turn,
  );
  return { version: 1, ...conversation, turns };
}

function readConversation(words, id) {
  const value = parse(words);
  if (!isObject(value) || value.version !== 1 || value.id !== id || !Array.isArray(value.turns)) return null;
  return {
    id,
    title: word(value.title),
    named: value.named === true,
    changedAt: time(value.changedAt),
    customInputs: isObject(value.customInputs) ? value.customInputs : {},
    turns: value.turns.map(readTurn).filter(Boolean),
  };
}

function readTurn(value) {
  if (!isObject(value) || typeof value.id !== "string" || typeof value.question !== "string") return null;
  const { id, question } = value;
  return {
    id,
    question,
    askedAt: time(value.askedAt),
    changedAt: time(value.changedAt),
    answer: readAnswer(value.answer),
  };
}

function readAnswer(value) {
  if (!isObject(value)) return { ...emptyAnswer(), status: "stopped" };
  return {
    status: ["done", "stopped", "failed"].includes(value.status) ? value.status : "stopped",
    text: word(value.text),
    citations: (Array.isArray(value.citations) ? value.citations : []).map(readCitation).filter(Boolean),
    outputs: readOutputs(value.outputs),
    traceId: word(value.traceId) || null,
    error: readError(value.error),
    feedback: readFeedback(value.feedback),
  };
}

function readError(value) {
  if (!isObject(value)) return null;
  return {
    kind: word(value.kind),
    message: word(value.message),
    status: 0,
    retryAfterS: null,
    requestId: word(value.requestId) || null,
  };
}

function readFeedback(value) {
  if (!isObject(value) || typeof value.value !== "boolean") return null;
  return { value: value.value, comment: word(value.comment), assessmentId: word(value.assessmentId) || null };
}

function parse(words) {
  if (words === null) return null;
  try {
    return JSON.parse(words);
  } catch {
    return null;
  }
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const word = (value) => (typeof value === "string" ? value : "");
const time = (value) => (Number.isFinite(value) ? value : 0);

function openStorage() {
  try {
    const probe = `${PREFIX}probe`;
    localStorage.getItem(probe);
    return localStorage;
  } catch {
    return null;
  }
}

function storedUnder(storage) {
  const found = [];
  try {
    for (let i = 0; i < (storage?.length ?? 0); i += 1) {
      const key = storage.key(i);
      if (key?.startsWith(PREFIX)) found.push([key.slice(PREFIX.length), storage.getItem(key)]);
    }
  } catch {
    // What could be read is read.
  }
  return found;
}

/** Random, also where `crypto.randomUUID` is missing: on http from another machine. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
