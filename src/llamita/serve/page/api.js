// The server as the rest of the page sees it: its model and its answers. Knows paths, the key and errors, no element.

import { readEvents } from "./event_stream.js";
import { remember } from "./storage.js";

const KEY_NAME = "llamita.key";
const LOADING_SECONDS = 1;

/** What the server refused, in its own words. status 0: it could not be reached. */
export class ApiError extends Error {
  constructor(status, message, code = "", retrySeconds = 0) {
    super(message);
    Object.assign(this, { status, code, retrySeconds });
  }
}

/** Whether a header can carry a key, and a server have one: signs of ASCII, no spaces. */
export function isSendableKey(key) {
  return /^[!-~]+$/.test(key);
}

/** askKey(isWrong) resolves to a key that can be sent, or to null where nobody gives one. storage keeps it, once it was right. */
export class Api {
  #askKey;
  #storage;
  #key;
  #asking = null;

  constructor(askKey, storage) {
    this.#askKey = askKey;
    this.#storage = storage;
    const kept = storage.getItem(KEY_NAME) ?? "";
    this.#key = isSendableKey(kept) ? kept : null;
  }

  /** The served model; waits while it is being loaded, and calls onWait once then. */
  async model(onWait) {
    for (let isFirst = true; ; isFirst = false) {
      try {
        const response = await this.#request("/v1/models");
        return (await response.json()).data[0];
      } catch (error) {
        if (!(error instanceof ApiError) || error.status !== 503) throw error;
        if (isFirst) onWait(error.message);
        await new Promise((resolve) => setTimeout(resolve, LOADING_SECONDS * 1000));
      }
    }
  }

  /** Yields the events of a chat completion. Raises ApiError, also for a stream that breaks off; AbortError when stopped. */
  async *chat(body, signal) {
    const headers = { "Content-Type": "application/json" };
    const response = await this.#request("/v1/chat/completions", { method: "POST", headers, body: JSON.stringify(body), signal });
    const events = readEvents(response.body);
    for (;;) {
      const { value, done } = await untilLost(events.next(), signal);
      if (done && !value) throw new ApiError(0, "The answer broke off: the connection to the server was lost.");
      if (done) return;
      if (value.error) throw new ApiError(500, value.error.message, value.error.code);
      yield value;
    }
  }

  async #request(path, options = {}) {
    for (;;) {
      const key = this.#key;
      const headers = key ? { ...options.headers, Authorization: `Bearer ${key}` } : options.headers;
      const response = await untilLost(fetch(path, { ...options, headers }), options.signal);
      if (response.status !== 401 && key) remember(this.#storage, KEY_NAME, key);
      if (response.ok) return response;
      if (response.status !== 401) throw await errorOf(response);
      if (key && this.#storage.getItem(KEY_NAME) === key) this.#storage.removeItem(KEY_NAME);
      if (!(await this.#newKey(key))) throw await errorOf(response);
    }
  }

  /** Asks for a key, once for all requests that need it; whether there is another one than the old. */
  async #newKey(old) {
    if (this.#key !== old) return true; // another request has asked meanwhile
    this.#asking ??= this.#askKey(old !== null).finally(() => (this.#asking = null));
    const key = await this.#asking;
    if (key === null) return false;
    this.#key = key;
    return true;
  }
}

/** The same promise, with a lost connection told as one. */
async function untilLost(promise, signal) {
  try {
    return await promise;
  } catch (error) {
    if (signal?.aborted || error instanceof ApiError) throw error;
    throw new ApiError(0, "The server cannot be reached. Is it still running?");
  }
}

async function errorOf(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // a proxy in between may answer anything
  }
  const retrySeconds = Number(response.headers.get("Retry-After")) || 0;
  return new ApiError(response.status, error.message ?? `The server answered ${response.status}.`, error.code, retrySeconds);
}
