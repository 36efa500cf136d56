/** What a conversation sends beside its messages: fields for the usual, JSON for all of it, and its check. */

import { el } from "./dom.js";
import { hush, language, say, text } from "./messages.js";

const TYPES = {
  integer: { key: "typeInteger", is: Number.isInteger },
  number: { key: "typeNumber", is: Number.isFinite },
  string: { key: "typeString", is: (value) => typeof value === "string" },
  boolean: { key: "typeBoolean", is: (value) => typeof value === "boolean" },
  array: { key: "typeArray", is: Array.isArray },
  object: {
    key: "typeObject",
    is: (value) => value !== null && typeof value === "object" && !Array.isArray(value),
  },
};

/** The object that is written, or in words what is wrong with it: `{value}` or `{problem: {key, values}}`. */
export function readCustomInputs(words, about) {
  if (!words.trim()) return { value: {} };
  let value;
  try {
    value = JSON.parse(words);
  } catch (error) {
    return { problem: syntaxProblem(words, error) };
  }
  if (!TYPES.object.is(value)) return { problem: { key: "jsonNotObject" } };
  const problem = schemaProblem(value, about?.custom_inputs) ?? programProblem(value, about?.programs);
  return problem ? { problem } : { value };
}

/** Where the browser saw the mistake; each browser tells it in another way, and some not at all: then the end. */
function syntaxProblem(words, { message }) {
  const place = /line (\d+) column (\d+)/.exec(message);
  if (place) return { key: "jsonSyntaxAt", values: { line: Number(place[1]), column: Number(place[2]) } };
  const position = /position (\d+)/.exec(message);
  const token = /token '?(.)/u.exec(message);
  const at = position ? Number(position[1]) : token ? words.indexOf(token[1]) : -1;
  const lines = words.slice(0, at < 0 ? words.length : at).split("\n");
  return { key: "jsonSyntaxAt", values: { line: lines.length, column: lines.at(-1).length + 1 } };
}

function schemaProblem(value, schema) {
  const properties = TYPES.object.is(schema?.properties) ? schema.properties : null;
  if (!properties) return null;
  for (const [key, part] of Object.entries(value)) {
    if (!Object.hasOwn(properties, key)) {
      if (schema.additionalProperties === false) {
        return { key: "jsonUnknownKey", values: { key, known: Object.keys(properties).join(", ") } };
      }
      continue;
    }
    const problem = partProblem(key, part, properties[key]);
    if (problem) return problem;
  }
  return null;
}

/** Against one property: a type or a choice of types, and limits. */
function partProblem(key, part, property) {
  const choices = Array.isArray(property.anyOf) ? property.anyOf : [property];
  if (part === null && choices.some(({ type }) => type === "null" || type === undefined)) return null;
  const kinds = choices.filter(({ type }) => type in TYPES);
  if (!kinds.length) return null;
  const kind = kinds.find(({ type }) => TYPES[type].is(part));
  if (!kind) return { key: "jsonWrongType", values: { key, typeKey: TYPES[kinds[0].type].key } };
  if (part < kind.minimum) return { key: "jsonTooSmall", values: { key, limit: kind.minimum } };
  if (part > kind.maximum) return { key: "jsonTooLarge", values: { key, limit: kind.maximum } };
  if (part.length > kind.maxLength) return { key: "jsonTooLong", values: { key, limit: kind.maxLength } };
  return null;
}

function programProblem({ program }, programs) {
  if (typeof program !== "string" || !programs?.length || programs.includes(program)) return null;
  return { key: "jsonUnknownProgram", values: { value: program, known: programs.join(", ") } };
}

/** The editor. `changed(value)` is called with each valid object that differs from the one before. */
export class CustomInputsEditor {
  constructor(fields, summary, changed) {
    this.fields = fields;
    this.summary = summary;
    this.changed = changed;
    this.about = null;
    this.value = {};
    this.problem = null;
    this.build();
  }

  /** Offer what this server has. */
  know(about) {
    this.about = about;
    this.build();
    this.show(this.value);
  }

  /** Show an object: that of a conversation. */
  show(value) {
    this.value = value;
    this.raw.value = Object.keys(value).length ? JSON.stringify(value, null, 2) : "";
    this.check();
    this.showFields();
  }

  /** Whether the object can be sent. If not, the reason is shown and focused. */
  ready() {
    if (!this.problem) return true;
    this.fields.closest("details").open = true;
    this.raw.focus();
    return false;
  }

  build() {
    const { k = 5, programs = [], languages = [] } = this.about ?? {};
    this.k = el("input", {
      id: "option-k",
      type: "number",
      min: "1",
      max: "100",
      inputmode: "numeric",
      placeholder: String(k),
    });
    this.k.addEventListener("input", () =>
      this.put("k", this.k.value === "" ? undefined : Number(this.k.value)),
    );
    this.program = choice(
      "option-program",
      programs.map((name) => [name, name]),
      programs[0],
    );
    this.program.addEventListener("change", () =>
      this.put("program", this.program.value === programs[0] ? undefined : this.program.value),
    );
    this.languages = choice(
      "option-language",
      languages.map((tag) => [tag, languageName(tag)]),
    );
    this.languages.prepend(el("option", { value: "", say: "anyLanguage" }));
    this.languages.value = "";
    this.languages.addEventListener("change", () => this.putLanguage(this.languages.value));
    this.raw = el("textarea", {
      id: "option-raw",
      rows: "4",
      spellcheck: "false",
      dir: "ltr",
      autocomplete: "off",
      "aria-describedby": "option-raw-problem option-raw-help",
      placeholder: '{"k": 8}',
    });
    this.raw.addEventListener("input", () => this.written());
    this.word = el("p", { class: "problem", id: "option-raw-problem", role: "alert" });
    const reset = el("button", { type: "button", class: "quiet-button", say: "optionsReset" });
    reset.addEventListener("click", () => this.take({}));
    this.fields.replaceChildren(
      field("optionK", this.k),
      ...(programs.length > 1 ? [field("optionProgram", this.program)] : []),
      ...(languages.length ? [field("optionLanguage", this.languages)] : []),
      el(
        "div",
        { class: "field wide" },
        el("label", { for: "option-raw", say: "optionRaw" }),
        this.raw,
        this.word,
        el(
          "div",
          { class: "field-foot" },
          el("p", { class: "help", id: "option-raw-help", say: "optionRawHelp" }),
          reset,
        ),
      ),
    );
  }

  written() {
    if (this.check()) this.keep(readCustomInputs(this.raw.value, this.about).value);
    this.showFields();
  }

  put(key, part) {
    const { [key]: _, ...others } = this.value;
    this.take(part === undefined ? others : { ...others, [key]: part }, key);
  }

  putLanguage(tag) {
    const { lang: _, ...others } = this.value.filters ?? {};
    const filters = tag ? { ...others, lang: tag } : others;
    this.put("filters", Object.keys(filters).length ? filters : undefined);
  }

  take(value, editing) {
    this.raw.value = Object.keys(value).length ? JSON.stringify(value, null, 2) : "";
    this.value = value;
    if (this.check()) this.keep(value);
    this.showFields(editing);
  }

  keep(value) {
    this.value = value;
    this.changed(value);
  }

  check() {
    const { problem } = readCustomInputs(this.raw.value, this.about);
    this.problem = problem ?? null;
    this.raw.setAttribute("aria-invalid", String(Boolean(problem)));
    if (!problem) hush(this.word);
    else say(this.word, problem.key, inWords(problem.values));
    return !problem;
  }

  showFields(editing) {
    if (editing !== "k") this.k.value = Number.isFinite(this.value.k) ? this.value.k : "";
    if (this.about?.programs?.length) {
      this.program.value = this.about.programs.includes(this.value.program)
        ? this.value.program
        : this.about.programs[0];
    }
    const tag = this.value.filters?.lang;
    this.languages.value = this.about?.languages?.includes(tag) ? tag : "";
    const parts = Object.entries(this.value).map(
      ([key, part]) => `${key}: ${typeof part === "string" ? part : JSON.stringify(part)}`,
    );
    this.summary.classList.toggle("problem", Boolean(this.problem));
    hush(this.summary);
    if (this.problem) say(this.summary, "optionsWrong");
    else this.summary.textContent = parts.join(" · ");
  }
}

/** Names of types are said in the language of the moment, so they are getters. */
function inWords(values = {}) {
  if (!values.typeKey) return values;
  return {
    ...values,
    get type() {
      return text(values.typeKey);
    },
  };
}

function languageName(tag) {
  try {
    return new Intl.DisplayNames([language()], { type: "language" }).of(tag);
  } catch {
    return tag;
  }
}

function choice(id, options, chosen) {
  const node = el("select", { id }, ...options.map(([value, words]) => el("option", { value }, words)));
  if (chosen) node.value = chosen;
  return node;
}

function field(key, input) {
  return el("div", { class: "field" }, el("label", { for: input.id, say: key }), input);
}
