// The conversations that the browser keeps, each under a name of its own, and shared by all tabs of the page.
//
// A conversation: {id, title, system, changed, messages, writes}. A message: {role: "user", content} or {role: "assistant",
// versions, shown}, where versions are answers (answer.js) and shown is the index of the one that counts. writes counts, by
// page, how often each wrote the conversation, so that a page sees whether another has written what it does not know
// (a version vector), before it overwrites it or after it was overwritten itself.

import { remember } from "./storage.js";

const PREFIX = "llamita.conversation.";
const INDEX = "llamita.conversations"; // [{id, title, changed}], so that a list needs no conversation
const TITLE_CHARACTERS = 60;
const PAGE = newId(); // another one each time that the page is opened, in whatever tab

/** A conversation in which nothing has been said. */
export function newConversation(system = "") {
  return { id: newId(), title: "", system, changed: Date.now(), messages: [], writes: {} };
}

/** Makes a conversation another one, which begins as the old one was, under a title that no other has. */
export function becomeCopy(conversation, others) {
  const title = conversation.title.replace(/ \(\d{1,6}\)$/, "");
  let number = 2;
  while (others.some((other) => other.title === `${title} (${number})`)) number += 1;
  Object.assign(conversation, { id: newId(), title: `${title} (${number})`, writes: {} });
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

/** Whether a conversation holds writes that another state of it does not know. */
export function isAhead(one, other) {
  return Object.entries(one.writes).some(([page, n]) => n > (other.writes[page] ?? 0));
}

/** Whether a state of a conversation was written by somebody who did not know what this page had written before. */
export function isUnaware(stored, own) {
  return (stored.writes[PAGE] ?? 0) < (own.writes[PAGE] ?? 0);
}

/** Whether a conversation has been kept at some time; where it is no longer, somebody has deleted it. */
export function wasKept(conversation) {
  return Object.keys(conversation.writes).length > 0;
}

/** Keeps conversations in a storage such as localStorage. */
export class Conversations {
  constructor(storage) {
    this.storage = storage;
  }

  /** What there is as {id, title, changed}, the latest first. Two tabs may overwrite each other's index: what lies there counts. */
  list() {
    const index = parsed(this.storage.getItem(INDEX));
    const known = new Map((Array.isArray(index) ? index : []).map((entry) => [entry?.id, entry]));
    const entries = this.#ids().map((id) => known.get(id) ?? this.read(id)).filter((entry) => entry !== null);
    return entries.map(({ id, title, changed }) => ({ id, title, changed })).sort((a, b) => b.changed - a.changed);
  }

  has(id) {
    return this.storage.getItem(PREFIX + id) !== null;
  }

  /** Whether a change under a key, null for all of them, concerns a conversation; without an id, whether it concerns any. */
  concerns(key, id = null) {
    if (key === null) return true;
    return id === null ? key === INDEX || key.startsWith(PREFIX) : key === PREFIX + id;
  }

  /** A conversation, or null where there is none that can be read. */
  read(id) {
    const packed = parsed(this.storage.getItem(PREFIX + id));
    try {
      const messages = packed.messages.map((message) => withTokens(message, unpackToken));
      return { ...packed, id, title: String(packed.title ?? ""), system: String(packed.system ?? ""), writes: Object(packed.writes), messages };
    } catch {
      return null; // of another version, or damaged
    }
  }

  /** Whether another page has written to a conversation what this state of it does not know. */
  isNewer(conversation) {
    const stored = this.read(conversation.id);
    return stored !== null && isAhead(stored, conversation);
  }

  /**
   * Keeps a conversation; whether there was room. Where there is none, others lose what is known of their tokens, and at last
   * this one does: texts stay. Overwrites what is there: isNewer tells whether that may be.
   */
  write(conversation) {
    const key = PREFIX + conversation.id;
    const packed = { ...conversation, writes: { ...conversation.writes, [PAGE]: (conversation.writes[PAGE] ?? 0) + 1 } };
    const entry = { id: conversation.id, title: conversation.title, changed: conversation.changed };
    const others = this.list().filter(({ id }) => id !== conversation.id);
    packed.messages = conversation.messages.map((message) => withTokens(message, packToken));
    if (!this.#fits(key, packed, others)) {
      packed.messages = conversation.messages.map(withoutTokens);
      if (!this.#fits(key, packed, others)) return false;
    }
    conversation.writes = packed.writes;
    return this.#fits(INDEX, [entry, ...others], others);
  }

  /** Gives a conversation another title. That counts as no write: whoever writes it now takes the title over. */
  rename(id, title) {
    const packed = parsed(this.storage.getItem(PREFIX + id));
    if (!packed) return;
    const entries = this.list().map((entry) => (entry.id === id ? { ...entry, title } : entry));
    this.#fits(PREFIX + id, { ...packed, title }, entries);
    this.#fits(INDEX, entries, entries);
  }

  remove(id) {
    this.storage.removeItem(PREFIX + id);
    remember(this.storage, INDEX, JSON.stringify(this.list()));
  }

  #ids() {
    const keys = Array.from({ length: this.storage.length }, (_, i) => this.storage.key(i));
    return keys.filter((key) => key?.startsWith(PREFIX)).map((key) => key.slice(PREFIX.length));
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
    if (!Array.isArray(packed?.messages)) return;
    remember(this.storage, PREFIX + id, JSON.stringify({ ...packed, messages: packed.messages.map(withoutTokens) }));
  }
}

function newId() {
  return crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`; // plain http has no randomUUID
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
