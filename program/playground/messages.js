/**
 * Every text of the page, in English and Japanese.
 *
 * `say` and `sayAttribute` remember what an element says, so that `speak` changes the language in place:
 * nothing is drawn anew, and an answer that is being written goes on.
 */

const plural = (count, one, many) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

const ENGLISH = {
  // The frame of the page
  skipToQuestion: "Skip to the question",
  conversations: "Conversations",
  openConversations: "Open conversations",
  closeConversations: "Close conversations",
  newConversation: "New conversation",
  noConversations: "Your conversations are kept here, in this browser.",
  deleteAll: "Delete all",
  switchLanguage: "日本語",
  themeAuto: "Colours: as the system",
  themeLight: "Colours: light",
  themeDark: "Colours: dark",
  rename: ({ title }) => `Rename “${title}”`,
  renameField: "Conversation title",
  remove: ({ title }) => `Delete “${title}”`,
  removed: ({ title }) => `Deleted “${title}”.`,
  undo: "Undo",
  dismiss: "Dismiss",
  confirmDeleteAllTitle: "Delete all conversations?",
  confirmDeleteAll: ({ count }) =>
    `${plural(count, "conversation", "conversations")} will be removed from this browser. This cannot be undone.`,
  cancel: "Cancel",
  close: "Close",
  storageFull: "This browser's storage is full. New answers are kept only until this tab is closed.",
  storageBlocked: "This browser keeps no storage for this page. Conversations last until this tab is closed.",
  // The reader and the empty page
  readerExtractive: "extractive (no language model)",
  readerLabel: "Reader",
  welcomeTitle: "Ask your documents",
  welcomeLead: ({ documents, passages }) =>
    `${plural(documents, "document", "documents")}, ${plural(passages, "passage", "passages")}. ` +
    "Every answer links to the sentences it rests on.",
  welcomeLeadUnknown: "Every answer links to the sentences it rests on.",
  hintAsk: "Ask in your own words, in English or Japanese.",
  hintSources: "Point at a number in an answer to see the passage it came from; follow it to read on.",
  hintFollowUp: "Follow up: earlier turns of the conversation are taken into account.",
  tryOne: "Try one of these",
  aboutFailed: ({ message }) => `The server could not be reached: ${message}`,
  // Asking
  ask: "Ask",
  question: "Your question",
  questionPlaceholder: "Ask a question…",
  send: "Send",
  stop: "Stop",
  toEnd: "To the latest",
  options: "Options",
  optionK: "Passages to read",
  optionProgram: "Program",
  optionLanguage: "Language of the documents",
  anyLanguage: "Any",
  optionRaw: "custom_inputs, as JSON",
  optionRawHelp: "Sent with every question of this conversation.",
  optionsReset: "Reset",
  optionsWrong: "to be corrected",
  jsonSyntaxAt: ({ line, column }) => `Not valid JSON: look at line ${line}, character ${column}.`,
  jsonNotObject: "Must be an object, in braces: { … }.",
  jsonUnknownKey: ({ key, known }) => `“${key}” is not known. Known: ${known}.`,
  jsonWrongType: ({ key, type }) => `“${key}” must be ${type}.`,
  jsonTooSmall: ({ key, limit }) => `“${key}” must be at least ${limit}.`,
  jsonTooLarge: ({ key, limit }) => `“${key}” must be at most ${limit}.`,
  jsonTooLong: ({ key, limit }) => `“${key}” may have at most ${limit} characters.`,
  jsonUnknownProgram: ({ value, known }) => `There is no program “${value}”. There are: ${known}.`,
  typeInteger: "a whole number",
  typeNumber: "a number",
  typeString: "text in quotes",
  typeObject: "an object in braces",
  typeBoolean: "true or false",
  typeArray: "a list in square brackets",
  // Answers
  answer: "Answer",
  searching: "Searching the documents…",
  searchingFor: ({ query }) => `Searching for: ${query}…`,
  beingWritten: "Answer is being written",
  complete: ({ count }) => `Answer complete, ${plural(count, "source", "sources")}`,
  stoppedAnnouncement: "Answer stopped",
  stopped: "Stopped. What was said so far is kept.",
  stoppedEmpty: "Stopped before anything was said.",
  askAgain: "Ask again",
  abstained: "The documents found do not hold an answer.",
  fallback: ({ reason }) =>
    `The language model failed, so sentences from the documents answer instead. ${reason}`,
  searchedFor: ({ query }) => `Searched for: ${query}`,
  marker: ({ number, title }) => `Source ${number}: ${title}`,
  timings: ({ condense, retrieve, read }) =>
    [condense && `rewrite ${condense}`, retrieve && `search ${retrieve}`, read && `read ${read}`]
      .filter(Boolean)
      .join(" · "),
  dropped: ({ count }) => `${plural(count, "marker", "markers")} without a source removed`,
  copy: "Copy",
  copied: "Copied",
  copyFailed: "Could not be copied",
  sourcesHeading: "Sources",
  // Errors
  errorTitle: "No answer",
  errorMidway: "The answer broke off. What was said so far is kept.",
  errorNetwork: "The server could not be reached. Is it running?",
  errorCutOff: "The connection ended before the answer was complete.",
  errorUnreadable: "The server sent something that is not an answer.",
  errorBusy: "The server is busy.",
  retryIn: ({ seconds }) => `Try again in ${seconds} s`,
  retry: "Try again",
  errorToken: "The server asks for a token.",
  requestId: ({ id }) => `Request ${id}`,
  // Sources
  sources: "Sources",
  uncited: ({ count }) => `Retrieved, not cited (${count})`,
  score: ({ score }) => `Score ${score}`,
  showInIndex: "Show in index",
  showTitleInIndex: ({ title }) => `Show in index: ${title}`,
  opensNewTab: "opens in a new tab",
  // Document view
  documentLoading: "Opening the document…",
  documentFailed: ({ message }) => `The document cannot be shown: ${message}`,
  documentIndexed: "As indexed",
  documentOpen: "Open the original",
  // Feedback and trace
  feedback: "Feedback on this answer",
  good: "Good answer",
  bad: "Bad answer",
  comment: "What was good or bad about it? (optional)",
  sendComment: "Send comment",
  feedbackSending: "Saving…",
  feedbackSaved: "Thank you. Saved with the trace.",
  feedbackFailed: ({ message }) => `Not saved: ${message}`,
  trace: "Trace",
  traceTitle: "Open the trace of this answer in MLflow",
  traceOpening: "Opening the trace…",
  traceFailed: ({ message }) => `The trace cannot be opened: ${message}`,
  traceBlocked: "The browser blocked the new tab.",
  traceOpen: "Open the trace",
  // Token
  tokenTitle: "This server asks for a token",
  tokenHelp: "It is kept in this tab only, until the tab is closed.",
  tokenRejected: "That token was not accepted. Check it, and try again.",
  tokenField: "Token",
  tokenSend: "Continue",
};

const JAPANESE = {
  skipToQuestion: "質問欄へ移動",
  conversations: "会話",
  openConversations: "会話の一覧を開く",
  closeConversations: "会話の一覧を閉じる",
  newConversation: "新しい会話",
  noConversations: "会話はこのブラウザーに保存され、ここに並びます。",
  deleteAll: "すべて削除",
  switchLanguage: "English",
  themeAuto: "配色：システムに合わせる",
  themeLight: "配色：ライト",
  themeDark: "配色：ダーク",
  rename: ({ title }) => `「${title}」の名前を変更`,
  renameField: "会話の名前",
  remove: ({ title }) => `「${title}」を削除`,
  removed: ({ title }) => `「${title}」を削除しました。`,
  undo: "元に戻す",
  dismiss: "閉じる",
  confirmDeleteAllTitle: "すべての会話を削除しますか？",
  confirmDeleteAll: ({ count }) =>
    `${count} 件の会話をこのブラウザーから削除します。この操作は取り消せません。`,
  cancel: "キャンセル",
  close: "閉じる",
  storageFull:
    "ブラウザーの保存領域がいっぱいです。新しい回答は、このタブを閉じるまでのあいだだけ保持されます。",
  storageBlocked:
    "このページではブラウザーの保存領域を使えません。会話は、このタブを閉じるまでのあいだだけ保持されます。",
  readerExtractive: "抽出型（言語モデルなし）",
  readerLabel: "回答者",
  welcomeTitle: "文書に質問する",
  welcomeLead: ({ documents, passages }) =>
    `${documents.toLocaleString("ja")} 件の文書、${passages.toLocaleString("ja")} 個のパッセージ。回答には必ず、根拠となる文へのリンクが付きます。`,
  welcomeLeadUnknown: "回答には必ず、根拠となる文へのリンクが付きます。",
  hintAsk: "普段の言葉で質問してください。日本語でも英語でもかまいません。",
  hintSources:
    "回答中の番号にポインターを合わせると、元のパッセージが表示されます。クリックすると原文が開きます。",
  hintFollowUp: "続けて質問できます。それまでのやり取りを踏まえて回答します。",
  tryOne: "質問の例",
  aboutFailed: ({ message }) => `サーバーに接続できませんでした：${message}`,
  ask: "質問する",
  question: "質問",
  questionPlaceholder: "質問を入力…",
  send: "送信",
  stop: "停止",
  toEnd: "最新の回答へ",
  options: "オプション",
  optionK: "参照するパッセージ数",
  optionProgram: "プログラム",
  optionLanguage: "文書の言語",
  anyLanguage: "すべて",
  optionRaw: "custom_inputs（JSON）",
  optionRawHelp: "この会話のすべての質問とともに送信されます。",
  optionsReset: "リセット",
  optionsWrong: "要修正",
  jsonSyntaxAt: ({ line, column }) =>
    `JSON として正しくありません。${line} 行目の ${column} 文字目を確認してください。`,
  jsonNotObject: "波かっこで囲んだオブジェクト { … } を入力してください。",
  jsonUnknownKey: ({ key, known }) => `「${key}」という項目はありません。使える項目：${known}`,
  jsonWrongType: ({ key, type }) => `「${key}」には${type}を指定してください。`,
  jsonTooSmall: ({ key, limit }) => `「${key}」には ${limit} 以上の値を指定してください。`,
  jsonTooLarge: ({ key, limit }) => `「${key}」には ${limit} 以下の値を指定してください。`,
  jsonTooLong: ({ key, limit }) => `「${key}」は ${limit} 文字以内で指定してください。`,
  jsonUnknownProgram: ({ value, known }) => `「${value}」というプログラムはありません。使えるもの：${known}`,
  typeInteger: "整数",
  typeNumber: "数値",
  typeString: "引用符で囲んだ文字列",
  typeObject: "波かっこで囲んだオブジェクト",
  typeBoolean: " true か false ",
  typeArray: "角かっこで囲んだ配列",
  answer: "回答",
  searching: "文書を検索しています…",
  searchingFor: ({ query }) => `検索中：${query}…`,
  beingWritten: "回答を作成しています",
  complete: ({ count }) => `回答が完成しました。出典は ${count} 件です`,
  stoppedAnnouncement: "回答を停止しました",
  stopped: "停止しました。ここまでの回答は残ります。",
  stoppedEmpty: "回答が始まる前に停止しました。",
  askAgain: "もう一度質問する",
  abstained: "見つかった文書の中に、答えはありませんでした。",
  fallback: ({ reason }) => `言語モデルが失敗したため、文書から抜き出した文で回答しています。${reason}`,
  searchedFor: ({ query }) => `検索語：${query}`,
  marker: ({ number, title }) => `出典 ${number}：${title}`,
  timings: ({ condense, retrieve, read }) =>
    [condense && `質問の整理 ${condense}`, retrieve && `検索 ${retrieve}`, read && `読解 ${read}`]
      .filter(Boolean)
      .join(" · "),
  dropped: ({ count }) => `出典のない番号 ${count} 個を除きました`,
  copy: "コピー",
  copied: "コピーしました",
  copyFailed: "コピーできませんでした",
  sourcesHeading: "出典",
  errorTitle: "回答できませんでした",
  errorMidway: "回答が途中で途切れました。ここまでの内容は残ります。",
  errorNetwork: "サーバーに接続できません。起動しているか確認してください。",
  errorCutOff: "回答が完成する前に接続が切れました。",
  errorUnreadable: "サーバーから回答として読めない応答が返されました。",
  errorBusy: "サーバーが混み合っています。",
  retryIn: ({ seconds }) => `あと ${seconds} 秒で再試行できます`,
  retry: "再試行",
  errorToken: "このサーバーにはトークンが必要です。",
  requestId: ({ id }) => `リクエスト ${id}`,
  sources: "出典",
  uncited: ({ count }) => `検索されたが引用されなかったパッセージ（${count}）`,
  score: ({ score }) => `スコア ${score}`,
  showInIndex: "索引で見る",
  showTitleInIndex: ({ title }) => `索引で見る：${title}`,
  opensNewTab: "新しいタブで開きます",
  documentLoading: "文書を開いています…",
  documentFailed: ({ message }) => `文書を表示できません：${message}`,
  documentIndexed: "索引に登録された本文",
  documentOpen: "原文を開く",
  feedback: "この回答への評価",
  good: "良い回答",
  bad: "良くない回答",
  comment: "良かった点、良くなかった点（任意）",
  sendComment: "コメントを送信",
  feedbackSending: "保存しています…",
  feedbackSaved: "ありがとうございます。トレースに保存しました。",
  feedbackFailed: ({ message }) => `保存できませんでした：${message}`,
  trace: "トレース",
  traceTitle: "この回答のトレースを MLflow で開く",
  traceOpening: "トレースを開いています…",
  traceFailed: ({ message }) => `トレースを開けません：${message}`,
  traceBlocked: "新しいタブがブラウザーにブロックされました。",
  traceOpen: "トレースを開く",
  tokenTitle: "このサーバーにはトークンが必要です",
  tokenHelp: "トークンはこのタブの中だけに保持され、タブを閉じると消えます。",
  tokenRejected: "トークンが受け付けられませんでした。確認して、もう一度入力してください。",
  tokenField: "トークン",
  tokenSend: "続ける",
};

export const LANGUAGES = { en: ENGLISH, ja: JAPANESE };

const REMEMBERED = "citeqa.language";
const said = new WeakMap();
let current = "en";

/** The language the page speaks: `en` or `ja`. */
export function language() {
  return current;
}

/** A text in the page's language. */
export function text(key, values = {}) {
  const message = LANGUAGES[current][key];
  return typeof message === "function" ? message(values) : message;
}

/** Make a text the content of an element, now and in the language that is chosen later; the element. */
export function say(node, key, values) {
  return sayAttribute(node, "", key, values);
}

/** The same for an attribute such as `aria-label` or `title`. */
export function sayAttribute(node, attribute, key, values) {
  const sayings = said.get(node) ?? new Map();
  sayings.set(attribute, { key, values });
  said.set(node, sayings);
  node.dataset.said = "";
  utter(node, attribute, key, values);
  return node;
}

/** Let an element say nothing any more. */
export function hush(node) {
  said.get(node)?.delete("");
  node.textContent = "";
}

/** Speak the language that was chosen before, else the browser's. */
export function speakAsBefore() {
  let before = null;
  try {
    before = localStorage.getItem(REMEMBERED);
  } catch {
    // Storage is blocked: the browser's language it is.
  }
  const browser = (navigator.languages ?? [navigator.language]).map((tag) => tag.slice(0, 2).toLowerCase());
  speak(before in LANGUAGES ? before : (browser.find((tag) => tag in LANGUAGES) ?? "en"));
}

/** Change the language of the whole page, in place, and remember it when `remember` is set. */
export function speak(tag, { remember = false } = {}) {
  current = tag;
  document.documentElement.lang = tag;
  adopt(document);
  for (const node of document.querySelectorAll("[data-said]")) {
    for (const [attribute, { key, values }] of said.get(node) ?? []) utter(node, attribute, key, values);
  }
  if (!remember) return;
  try {
    localStorage.setItem(REMEMBERED, tag);
  } catch {
    // Not remembered, then.
  }
}

/** Take over what the HTML file asks for: `data-say` for content, `data-say-<attribute>` for attributes. */
function adopt(root) {
  for (const node of root.querySelectorAll("[data-say]:not([data-said])")) say(node, node.dataset.say);
  for (const attribute of ["aria-label", "placeholder"]) {
    for (const node of root.querySelectorAll(`[data-say-${attribute}]:not([data-said])`)) {
      sayAttribute(node, attribute, node.getAttribute(`data-say-${attribute}`));
    }
  }
}

function utter(node, attribute, key, values) {
  const message = text(key, values);
  if (attribute) node.setAttribute(attribute, message);
  else node.textContent = message;
}
