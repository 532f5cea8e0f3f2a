// The messages of a conversation on the page. Draws what it is given and says what the reader wants; changes nothing itself.
//
// A message that is as it was stays the element that it was: with the focus, with what is selected and typed in it.

import { AnswerView } from "./answer_view.js";
import { byId, element, setChildren } from "./elements.js";
import { QuestionView } from "./question_view.js";

const NEAR_END_PIXELS = 60;

/** actions: those of QuestionView and AnswerView, but for openEditor. */
export class ChatView {
  #conversation = null;
  #views = [];
  #frame = 0;

  constructor(panel, actions) {
    Object.assign(this, { panel, node: byId("messages"), showsTokens: false, isStory: false, stopIds: new Set() });
    this.actions = { ...actions, openEditor: (index) => this.edit(index) };
    this.follows = true; // the end of the text, until the reader scrolls up
    this.node.addEventListener("scroll", () => {
      this.follows = this.node.scrollHeight - this.node.scrollTop - this.node.clientHeight < NEAR_END_PIXELS;
    });
  }

  /** Whether a question is being edited. */
  get isEditing() {
    return this.#views.some((view) => view.isEditing);
  }

  /** Draws a conversation, as far as it is not drawn yet. */
  show(conversation, isRunning) {
    const { messages } = conversation;
    const isOther = conversation !== this.#conversation && conversation.id !== this.#conversation?.id;
    const isAsked = isRunning && messages.length > this.#views.length;
    this.#conversation = conversation;
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.node.classList.toggle("story", this.isStory);
    const old = isOther ? [] : this.#views;
    this.#views = messages.map((message, index) => (old[index]?.isOf(message, this) ? old[index] : this.#newView(message, index)));
    this.#views.forEach((view, index) => view.update(this.#stateOf(messages, index, isRunning)));
    setChildren(this.node, this.#views.length ? this.#views.map(({ node }) => node) : [this.#welcome()]);
    this.panel.hideIfLost();
    if (isOther || isAsked || this.follows) this.scrollToEnd();
  }

  /** Draws the last answer again, once in a frame. */
  updateLast() {
    if (this.#frame) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      this.#views.at(-1)?.update();
      if (this.follows) this.scrollToEnd();
    });
  }

  scrollToEnd() {
    this.follows = true;
    this.node.scrollTop = this.node.scrollHeight;
  }

  /** Opens a question for editing; the last one where no index is given. */
  edit(index = this.#views.findLastIndex((view) => view.edit)) {
    this.#views[index]?.edit?.();
  }

  #newView(message, index) {
    return message.role === "user" ? new QuestionView(message, index, this) : new AnswerView(index, this);
  }

  #stateOf(messages, index, isRunning) {
    const isLast = index === messages.length - 1;
    const beginning = messages[index - 1]?.content;
    return { message: messages[index], beginning, isLast, isWriting: isLast && isRunning, showsTokens: this.showsTokens };
  }

  #welcome() {
    const text = this.isStory
      ? "This model tells stories. Write how one begins, or nothing at all, and it goes on."
      : "Ask something. Switch “Tokens” on to see what else could have been said.";
    return element("p", { class: "welcome" }, text);
  }
}
