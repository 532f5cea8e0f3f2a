// The page: what the reader does, and what comes of it. All state is here; every other module does one thing for it.

import { newAnswer, reopen, replaceToken } from "./answer.js";
import { Api } from "./api.js";
import { ChatView } from "./chat_view.js";
import { ConversationList } from "./conversation_list.js";
import { becomeCopy, Conversations, isAhead, isUnaware, newConversation, requestMessages, shownAnswer, titleOf, wasKept } from "./conversations.js";
import { byId } from "./elements.js";
import { keyList, listenToKeys } from "./keyboard.js";
import { askKey, notify } from "./notices.js";
import { closePanes, isNarrow, setUpPanes, toggleSettings, toggleSidebar } from "./panes.js";
import { Settings, settingRows } from "./settings.js";
import { isLasting, openStorage, remember } from "./storage.js";
import { AlternativesPanel } from "./token_view.js";
import { writeAnswer } from "./writing.js";

const CURRENT = "llamita.current"; // which conversation is open: in this tab, and in whichever opened one last
const SYSTEM = "llamita.system"; // what the last conversation was told first, for the next one
const KEEP_MILLISECONDS = 2000;

class Page {
  #model = null; // {id, max_model_len, template, stop_ids}, once the server has told
  #stopIds = new Set();
  #conversation = null;
  #writing = new Map(); // by id: {conversation, controller}; an answer goes on while another conversation is looked at
  #unkept = new Map(); // by id: conversations for which the browser has no room
  #wasFull = false;

  constructor() {
    this.kept = openStorage("localStorage");
    this.keptInTab = openStorage("sessionStorage");
    this.api = new Api(askKey, this.keptInTab);
    this.store = new Conversations(this.kept);
    this.settings = new Settings(this.kept);
    this.panel = new AlternativesPanel(this.settings);
    this.list = new ConversationList({
      open: (id) => this.open(id),
      rename: (id, title) => this.rename(id, title),
      remove: (id) => this.remove(id),
    });
    this.view = new ChatView(this.panel, {
      edit: (index, text) => this.edit(index, text),
      editorClosed: () => this.#compare(this.#conversation),
      regenerate: (index) => this.regenerate(index),
      goOn: (index) => this.goOn(index),
      replace: (index, at, other) => this.replace(index, at, other),
      showVersion: (index, version) => this.showVersion(index, version),
    });
    this.#setUp();
    this.open(this.keptInTab.getItem(CURRENT) ?? this.kept.getItem(CURRENT));
    if (!isLasting(this.kept)) notify("The browser keeps nothing for this page: what is said here is gone when it is closed.", null, 0);
  }

  get isWriting() {
    return this.#writing.has(this.#conversation.id);
  }

  get isStory() {
    return this.#model?.template === "story";
  }

  /** Asks the server what it serves; without an answer nothing can be sent. Whether it told. */
  async connect() {
    let close = () => {};
    try {
      this.#model = await this.api.model((message) => (close = notify(message, null, 0)));
    } catch (error) {
      close();
      notify(error.message, { label: "Try again", run: () => this.connect() }, 0);
      return false;
    }
    close();
    this.#stopIds = new Set(this.#model.stop_ids);
    Object.assign(this.view, { stopIds: this.#stopIds, isStory: this.isStory });
    document.title = byId("model").textContent = this.#model.id;
    byId("input").placeholder = this.isStory ? "How does the story begin?" : "Your message";
    byId("system-row").hidden = this.isStory;
    this.#draw();
    return true;
  }

  open(id) {
    this.#show((id && this.#known(id)) || newConversation(this.kept.getItem(SYSTEM) ?? ""));
    if (isNarrow()) closePanes();
    else byId("input").focus();
  }

  /** Sends a message, or begins another story. */
  send(text) {
    if (this.isWriting || !(text.trim() || this.isStory)) return false;
    if (this.isStory && this.#conversation.messages.length) this.open(null);
    const conversation = this.#conversation;
    conversation.title ||= titleOf(text);
    conversation.messages.push({ role: "user", content: text });
    this.#answer(newAnswer());
    return true;
  }

  /** Asks something else in the place of a question; what followed it goes, and can be had back. Whether that can be asked. */
  edit(index, text) {
    if (!(text.trim() || this.isStory)) return false;
    if (!isNarrow()) byId("input").focus();
    this.#stopAnd(() => {
      this.#cut(index, "What followed the question is gone.");
      this.#conversation.messages.push({ role: "user", content: text });
      this.#answer(newAnswer());
    });
    return true;
  }

  regenerate(index) {
    if (!this.isWriting) this.#answer(newAnswer(), index);
  }

  goOn(index) {
    const answer = shownAnswer(this.#conversation.messages[index]);
    if (!this.isWriting && this.#isOfModel(answer)) this.#answer(reopen(answer, this.#stopIds), index);
  }

  /** Puts another token in the place of one, and goes on from there; the old answer stays as a version. */
  replace(index, at, other) {
    this.#stopAnd(() => {
      const answer = shownAnswer(this.#conversation.messages[index]);
      if (!this.#isOfModel(answer)) return;
      if (index < this.#conversation.messages.length - 1) this.#cut(index + 1, "What followed the answer is gone.");
      this.#answer({ ...replaceToken(answer, at, other, this.#stopIds), model: answer.model }, index);
    });
  }

  showVersion(index, version) {
    this.#conversation.messages[index].shown = version;
    this.#keep(this.#conversation);
    this.#draw();
  }

  rename(id, title) {
    for (const conversation of this.#inMemory()) if (conversation.id === id) conversation.title = title;
    this.store.rename(id, title);
    this.#drawList();
  }

  remove(id) {
    const conversation = this.#known(id);
    this.#writing.get(id)?.controller.abort();
    this.store.remove(id);
    this.#unkept.delete(id);
    for (const other of [...this.#unkept.values()]) this.#keep(other); // perhaps there is room now
    if (id === this.#conversation.id) this.open(null);
    else this.#drawList();
    const undo = () => {
      this.#keep(conversation);
      this.#show(conversation);
    };
    if (conversation) notify("The conversation is deleted.", { label: "Undo", run: undo });
  }

  stop() {
    this.#writing.get(this.#conversation.id)?.controller.abort();
  }

  keepAll() {
    const writing = [...this.#writing.values()].map(({ conversation }) => conversation);
    for (const conversation of new Set([...writing, ...this.#unkept.values()])) this.#keep(conversation);
  }

  toggleTokens() {
    this.view.showsTokens = !this.view.showsTokens;
    byId("tokens").setAttribute("aria-pressed", String(this.view.showsTokens));
    byId("legend").hidden = !this.view.showsTokens;
    this.#draw();
  }

  /** Lets an answer be written: as a new message, or as another version of the one at an index. */
  async #answer(answer, index = null) {
    const conversation = this.#conversation;
    const { messages } = conversation;
    const message = index === null ? { role: "assistant", versions: [], shown: 0 } : messages[index];
    if (index === null) messages.push(message);
    message.shown = message.versions.push(answer) - 1;
    conversation.changed = Date.now();
    const writing = { conversation, controller: new AbortController() };
    if (!answer.finish) this.#writing.set(conversation.id, writing);
    this.#keep(conversation);
    this.#draw();
    if (answer.finish) return;
    writing.done = this.#write(conversation, message, answer, writing.controller.signal);
    await writing.done;
    const { id } = conversation; // another one than before, where another tab wrote to it meanwhile
    if (this.#writing.get(id) !== writing) return; // what was cut away is back: this answer was taken back
    this.#writing.delete(id);
    if (this.store.has(id) || this.#unkept.has(id)) this.#keep(conversation); // else it was deleted meanwhile
    if (conversation === this.#conversation) this.#draw();
  }

  async #write(conversation, message, answer, signal) {
    if (!this.#model && !(await this.connect())) {
      answer.finish = "error";
      answer.error = "The server cannot be reached.";
      return;
    }
    let kept = Date.now();
    const onChange = () => {
      if (conversation === this.#conversation) this.view.updateLast();
      if (signal.aborted || Date.now() - kept < KEEP_MILLISECONDS) return;
      kept = Date.now();
      this.#keep(conversation);
    };
    const told = this.isStory ? { ...conversation, system: "" } : conversation;
    const messages = requestMessages(told, conversation.messages.indexOf(message));
    await writeAnswer(this.api, messages, answer, this.settings.request(), this.#stopIds, signal, onChange);
    if (answer.finish === "error") this.#model = null; // perhaps another one is served by the time it works again
  }

  /** Does something once nothing is written any more. */
  async #stopAnd(act) {
    const conversation = this.#conversation;
    const writing = this.#writing.get(conversation.id);
    writing?.controller.abort();
    await writing?.done;
    if (conversation !== this.#conversation) this.#show(conversation); // that is what the reader saw
    act();
  }

  /** Whether an answer's tokens mean something to the model that is served now. */
  #isOfModel(answer) {
    const isSo = !this.#model || !answer.model || answer.model === this.#model.id;
    if (!isSo) notify(`These tokens are of another model, ${answer.model}.`);
    return isSo;
  }

  /** Takes away the messages from an index on. */
  #cut(index, text) {
    const conversation = this.#conversation;
    const before = structuredClone(conversation);
    conversation.messages.length = index;
    const undo = () => {
      const { id, writes } = conversation;
      this.#writing.get(id)?.controller.abort();
      this.#writing.delete(id);
      Object.assign(before, { id, writes });
      this.#keep(before);
      this.#show(before);
    };
    notify(text, { label: "Undo", run: undo });
  }

  /** Keeps a conversation: as another one, where another tab has written to it what is not known here. */
  #keep(conversation) {
    const isNewer = this.store.isNewer(conversation);
    this.#unkept.delete(conversation.id);
    if (isNewer) this.#fork(conversation);
    const isKept = this.store.write(conversation);
    if (!isKept && !this.#wasFull) notify("The browser has no room left: this conversation is gone when the page is closed. Delete others.");
    if (!isKept) this.#unkept.set(conversation.id, conversation);
    this.#wasFull = !isKept;
    if (isNewer) this.#drawList();
  }

  #fork(conversation) {
    const writing = this.#writing.get(conversation.id);
    const isWritten = writing?.conversation === conversation;
    if (isWritten) this.#writing.delete(conversation.id);
    becomeCopy(conversation, this.store.list());
    if (isWritten) this.#writing.set(conversation.id, writing);
    if (conversation === this.#conversation) this.#noteCurrent();
    notify(`Another tab has gone on with the same conversation. What was said here is kept as “${conversation.title}”.`);
  }

  /** The conversations that are more than what is kept of them. */
  #inMemory() {
    const writing = [...this.#writing.values()].map(({ conversation }) => conversation);
    return new Set([this.#conversation, ...writing, ...this.#unkept.values()]);
  }

  /** A conversation as it is here, else as it is kept. */
  #known(id) {
    return [...this.#inMemory()].find((conversation) => conversation?.id === id) ?? this.store.read(id);
  }

  /** Another tab has kept or deleted something; key names it, or is null where all is gone. */
  #takeOver(key) {
    if (!this.store.concerns(key)) return;
    for (const conversation of this.#inMemory()) if (this.store.concerns(key, conversation.id)) this.#compare(conversation);
    this.#drawList();
  }

  /** Brings together what is here of a conversation with what another tab has made of it. */
  #compare(conversation) {
    const stored = this.store.read(conversation.id);
    const writing = this.#writing.get(conversation.id);
    if (!stored) {
      if (wasKept(conversation)) writing?.controller.abort(); // what is on the screen stays, and is kept again when it is gone on with
    } else if (isUnaware(stored, conversation)) this.#keep(conversation);
    else if (!isAhead(stored, conversation)) conversation.title = stored.title;
    else if (writing || this.#unkept.has(conversation.id)) this.#keep(conversation);
    else if (!this.view.isEditing) this.#show(stored);
  }

  #show(conversation) {
    const isOther = this.#conversation?.id !== conversation.id;
    this.#conversation = conversation;
    if (isOther) this.#noteCurrent();
    if (document.activeElement !== byId("system")) byId("system").value = conversation.system;
    this.#draw();
  }

  #noteCurrent() {
    for (const storage of [this.keptInTab, this.kept]) remember(storage, CURRENT, this.#conversation.id);
  }

  #draw() {
    const conversation = this.#conversation;
    const last = conversation.messages.at(-1);
    const usage = last?.role === "assistant" ? shownAnswer(last).usage : null;
    byId("context").textContent = usage && this.#model ? `${usage.total_tokens} of ${this.#model.max_model_len}` : "";
    this.#drawSendOrStop();
    this.#drawList();
    this.view.show(conversation, this.isWriting);
  }

  #drawList() {
    const kept = this.store.list();
    const unkept = [...this.#unkept.values()].filter(({ id }) => !kept.some((entry) => entry.id === id));
    this.list.show([...unkept, ...kept], this.#conversation.id);
  }

  /** One of the two buttons, which hand the focus on to each other. */
  #drawSendOrStop() {
    const [shown, hidden] = this.isWriting ? [byId("stop"), byId("send")] : [byId("send"), byId("stop")];
    const hadFocus = document.activeElement === hidden;
    shown.hidden = false;
    hidden.hidden = true;
    if (hadFocus) shown.focus();
  }

  #setUp() {
    setUpPanes();
    byId("sampling").append(...settingRows(this.settings));
    byId("reset").addEventListener("click", () => this.settings.reset());
    byId("new").addEventListener("click", () => this.open(null));
    byId("stop").addEventListener("click", () => this.stop());
    byId("tokens").addEventListener("click", () => this.toggleTokens());
    byId("system").addEventListener("change", ({ target }) => {
      this.#conversation.system = target.value;
      remember(this.kept, SYSTEM, target.value);
      if (this.#conversation.messages.length) this.#keep(this.#conversation);
    });
    this.#setUpComposer();
    const keys = {
      "/": ["write", () => byId("input").focus()],
      n: ["new conversation", () => this.open(null)],
      e: ["edit the last question", () => this.view.edit()],
      r: ["another answer", () => this.#regenerateLast()],
      t: ["tokens", () => this.toggleTokens()],
      s: ["settings", () => toggleSettings()],
      c: ["conversations, on a narrow screen", () => toggleSidebar()],
    };
    listenToKeys(keys, (isInText) => this.#escape(isInText));
    byId("keys").append(...keyList(keys));
    addEventListener("pagehide", () => this.keepAll());
    addEventListener("storage", ({ key }) => this.#takeOver(key));
    addEventListener("pageshow", ({ persisted }) => persisted && this.#takeOver(null)); // meanwhile it was told nothing
  }

  #setUpComposer() {
    const input = byId("input");
    const send = () => {
      if (this.send(input.value)) input.value = "";
    };
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      send();
    });
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        send();
      } else if (event.key === "ArrowUp" && !input.value) {
        event.preventDefault();
        this.view.edit();
      }
    });
  }

  #regenerateLast() {
    const last = this.#conversation.messages.length - 1;
    if (this.#conversation.messages[last]?.role === "assistant") this.regenerate(last);
  }

  #escape(isInText) {
    if (this.panel.isOpen) this.panel.hide();
    else if (this.isWriting) this.stop();
    else if (isInText) document.activeElement.blur();
    else closePanes();
  }
}

new Page().connect();
