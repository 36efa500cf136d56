/** The server's routes as this page uses them. */

import { readEvents } from "./stream.js";

const TOKEN = "citeqa.token";

/**
 * A request that was not answered as asked.
 *
 * `kind` says how: `network`, `token` (none was given), `busy` (429), `refused` (any other status), `cutOff`,
 * `failed` (told in the stream), `unreadable`. `message` is the server's own word, where it gave one.
 */
export class ServerError extends Error {
  constructor(kind, { message = "", status = 0, retryAfterS = null, requestId = null } = {}) {
    super(message);
    Object.assign(this, { kind, status, retryAfterS, requestId });
  }
}

export class Server {
  /** `askForToken(rejected)` resolves to a token, or to null when the person gives none. */
  constructor(askForToken) {
    this.askForToken = askForToken;
    this.token = readToken();
    this.asking = null;
  }

  /** What the page must know: reader, programs, index, whether traces are kept. */
  about() {
    return this.json("/api/playground");
  }

  /** An indexed document and where a passage of it is. */
  document(uri, chunk) {
    const query = new URLSearchParams(chunk ? { uri, chunk } : { uri });
    return this.json(`/api/document?${query}`);
  }

  feedback(body) {
    return this.json("/api/feedback", { method: "POST", body: JSON.stringify(body) });
  }

  traceLink(traceId) {
    return this.json(`/api/trace-link?${new URLSearchParams({ trace_id: traceId })}`);
  }

  /**
   * The events of an answer as it is written, up to the one that ends it.
   *
   * Throws ServerError; an abort passes as the AbortError it is.
   */
  async *answer(request, signal) {
    const response = await this.request("/responses", {
      method: "POST",
      body: JSON.stringify({ ...request, stream: true }),
      headers: { Accept: "text/event-stream", "x-mlflow-return-trace-id": "true" },
      signal,
    });
    const requestId = response.headers.get("X-Request-Id");
    try {
      for await (const data of readEvents(response.body)) {
        if (data === "[DONE]") return;
        yield parse(data);
      }
    } catch (error) {
      if (error instanceof ServerError || signal.aborted) throw error;
      throw new ServerError("cutOff", { requestId });
    }
  }

  async json(path, options = {}) {
    const response = await this.request(path, options);
    try {
      return await response.json();
    } catch {
      throw new ServerError("unreadable", { status: response.status });
    }
  }

  /** A response with a good status; a 401 asks for the token as often as it takes. */
  async request(path, options = {}) {
    for (;;) {
      const token = this.token;
      const response = await this.send(path, options, token);
      if (response.ok) return response;
      if (response.status !== 401) throw await refusal(response);
      const newer = await this.newToken(token);
      if (newer === null) throw new ServerError("token", { status: 401 });
    }
  }

  async send(path, options, token) {
    const headers = { ...(options.body ? { "Content-Type": "application/json" } : {}), ...options.headers };
    if (token) headers.Authorization = `Bearer ${token}`;
    try {
      return await fetch(path, { ...options, headers, credentials: "omit", cache: "no-store" });
    } catch (error) {
      if (options.signal?.aborted) throw error;
      throw new ServerError("network");
    }
  }

  /** Ask once for all requests that wait; another request may have got a newer token meanwhile. */
  async newToken(rejected) {
    if (this.token && this.token !== rejected) return this.token;
    this.asking ??= this.askForToken(Boolean(rejected)).finally(() => {
      this.asking = null;
    });
    const token = await this.asking;
    if (token) {
      this.token = token;
      rememberToken(token);
    }
    return token;
  }
}

function parse(data) {
  try {
    const event = JSON.parse(data);
    if (event !== null && typeof event === "object") return event;
  } catch {
    // Told below.
  }
  throw new ServerError("unreadable");
}

async function refusal(response) {
  let body = null;
  try {
    body = await response.json();
  } catch {
    // A proxy's page, say: its status must do.
  }
  const message = [body?.error?.message, body?.message, body?.detail].find(
    (word) => typeof word === "string",
  );
  const wait = Number(response.headers.get("Retry-After"));
  return new ServerError(response.status === 429 ? "busy" : "refused", {
    message: message ?? `HTTP ${response.status}`,
    status: response.status,
    retryAfterS:
      response.status === 429 && Number.isFinite(wait) && wait > 0 ? Math.min(Math.ceil(wait), 3600) : null,
    requestId: response.headers.get("X-Request-Id"),
  });
}

function readToken() {
  try {
    return sessionStorage.getItem(TOKEN);
  } catch {
    return null;
  }
}

function rememberToken(token) {
  try {
    sessionStorage.setItem(TOKEN, token);
  } catch {
    // Kept in memory, until the page is left.
  }
}
