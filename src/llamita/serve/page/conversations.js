// The conversations that the browser keeps, each under a name of its own, so that two tabs do not overwrite each other's.
//
// A conversation: {id, title, system, changed, messages}. A message: {role: "user", content} or {role: "assistant", versions,
// shown}, where versions are answers (answer.js) and shown is the index of the one that counts.

const PREFIX = "llamita.conversation.";
const INDEX = "llamita.conversations"; // [{id, title, changed}], so that a list needs no conversation
const TITLE_CHARACTERS = 60;

/** A conversation in which nothing has been said. */
export function newConversation(system = "") {
  return { id: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`, title: "", system, changed: Date.now(), messages: [] };
}

/** The answer of an assistant's message that counts. */
export function shownAnswer(message) {
  return message.versions[message.shown];
}

/** The messages as the API takes them: up to an index, behind the system prompt where there is one. */
export function requestMessages({ system, messages }, end) {
  const plain = messages.slice(0, end).map((message) => ({
    role: message.role,
    content: message.role === "user" ? message.content : shownAnswer(message).text,
  }));
  return system.trim() ? [{ role: "system", content: system }, ...plain] : plain;
}

/** How a conversation is called until somebody gives it a name. */
export function titleOf(text) {
  const line = text.trim().split(/\s+/).join(" ");
  return line.length > TITLE_CHARACTERS ? `${line.slice(0, TITLE_CHARACTERS - 1)}…` : line;
}

/** Keeps conversations in a storage such as localStorage. */
export class Conversations {
  constructor(storage) {
    this.storage = storage;
  }

  /** What there is, the latest first. */
  list() {
    const index = parsed(this.storage.getItem(INDEX));
    const entries = Array.isArray(index) ? index.filter((entry) => typeof entry?.id === "string") : [];
    return entries.sort((a, b) => b.changed - a.changed);
  }

  /** A conversation, or null where there is none that can be read. */
  read(id) {
    const packed = parsed(this.storage.getItem(PREFIX + id));
    try {
      return packed && { ...packed, messages: packed.messages.map((message) => withTokens(message, unpackToken)) };
    } catch {
      return null; // of another version, or damaged
    }
  }

  /**
   * Keeps a conversation; whether there was room. Where there is none, others lose what is known of their tokens, and at last
   * this one does: texts stay.
   */
  write(conversation) {
    const messages = conversation.messages.map((message) => withTokens(message, packToken));
    const entry = { id: conversation.id, title: conversation.title, changed: conversation.changed };
    const others = this.list().filter(({ id }) => id !== conversation.id);
    if (!this.#fits(PREFIX + conversation.id, { ...conversation, messages }, others)) {
      const bare = conversation.messages.map(withoutTokens);
      if (!this.#fits(PREFIX + conversation.id, { ...conversation, messages: bare }, others)) return false;
    }
    return this.#fits(INDEX, [entry, ...others], others);
  }

  remove(id) {
    this.storage.removeItem(PREFIX + id);
    this.storage.setItem(INDEX, JSON.stringify(this.list().filter((entry) => entry.id !== id)));
  }

  #fits(key, value, others) {
    const text = JSON.stringify(value);
    const oldest = others.map(({ id }) => id).reverse();
    for (;;) {
      try {
        this.storage.setItem(key, text);
        return true;
      } catch {
        if (!oldest.length) return false;
        this.#forgetTokens(oldest.shift());
      }
    }
  }

  #forgetTokens(id) {
    const packed = parsed(this.storage.getItem(PREFIX + id));
    if (!packed) return;
    this.storage.setItem(PREFIX + id, JSON.stringify({ ...packed, messages: packed.messages.map(withoutTokens) }));
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function withTokens(message, change) {
  if (message.role === "user") return { ...message, content: String(message.content) };
  return { ...message, versions: message.versions.map((answer) => ({ ...answer, tokens: answer.tokens.map(change) })) };
}

function withoutTokens(message) {
  if (message.role === "user") return message;
  return { ...message, versions: message.versions.map((answer) => ({ ...answer, tokens: [], replaced: -1 })) };
}

// names of fields would take more room than what stands in them
const packPlace = ({ id, text, bytes, logprob }) => (bytes ? [id, text, logprob, bytes] : [id, text, logprob]);
const unpackPlace = ([id, text, logprob, bytes = null]) => ({ id, text, bytes, logprob });
const packToken = ({ others, ...token }) => [packPlace(token), ...others.map(packPlace)];
const unpackToken = ([token, ...others]) => ({ ...unpackPlace(token), others: others.map(unpackPlace) });
