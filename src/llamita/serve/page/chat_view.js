// The messages of a conversation on the page. Draws what it is given and says what the reader wants; changes nothing itself.

import { tokensPerSecond } from "./answer.js";
import { shownAnswer } from "./conversations.js";
import { byId, button, element } from "./elements.js";
import { renderMarkdown } from "./markdown.js";
import { TokenView } from "./token_view.js";

const NEAR_END_PIXELS = 60;

/** actions: edit(index, text), regenerate(index), goOn(index), replace(index, tokenIndex, alternative), showVersion(index, n). */
export class ChatView {
  #views = [];
  #frame = 0;

  constructor(panel, actions) {
    Object.assign(this, { panel, actions, node: byId("messages"), showsTokens: false, isStory: false, stopIds: new Set() });
    this.follows = true; // the end of the text, until the reader scrolls up
    this.node.addEventListener("scroll", () => {
      this.follows = this.node.scrollHeight - this.node.scrollTop - this.node.clientHeight < NEAR_END_PIXELS;
    });
  }

  /** Draws all of a conversation. */
  show(conversation, isRunning) {
    this.panel.hide();
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.node.classList.toggle("story", this.isStory);
    const last = conversation.messages.length - 1;
    this.#views = conversation.messages.map((message, index) =>
      message.role === "user"
        ? this.#userView(message, index)
        : this.#answerView(conversation, index, index === last, index === last && isRunning));
    this.node.replaceChildren(...(this.#views.length ? this.#views.map(({ node }) => node) : [this.#welcome()]));
    for (const view of this.#views) view.update?.();
    this.scrollToEnd();
  }

  /** Draws the last answer again, once in a frame. */
  updateLast() {
    if (this.#frame) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      this.#views.at(-1)?.update?.();
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

  #welcome() {
    const text = this.isStory
      ? "This model tells stories. Write how one begins, or nothing at all, and it goes on."
      : "Ask something. Switch “Tokens” on to see what else could have been said.";
    return element("p", { class: "welcome" }, text);
  }

  #userView(message, index) {
    const body = element("div", { class: "body plain" }, message.content);
    const actions = element("div", { class: "actions" });
    const node = element("article", { class: "message user", "aria-label": this.isStory ? "Beginning" : "You" }, body, actions);
    const edit = () => {
      const { text, form } = this.#editor(message, (content) => this.actions.edit(index, content), () => node.replaceChildren(body, actions));
      node.replaceChildren(form);
      text.focus();
    };
    actions.append(button("Edit", edit, { title: "Edit and send again (e)" }));
    return { node, edit };
  }

  #editor(message, onSend, onCancel) {
    const text = element("textarea", { rows: Math.min(12, message.content.split("\n").length + 1), "aria-label": "Edit" });
    text.value = message.content;
    text.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        onCancel();
      } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        onSend(text.value);
      }
    });
    const buttons = element("div", { class: "actions" }, button("Send", () => onSend(text.value)), button("Cancel", onCancel));
    return { text, form: element("div", { class: "editor" }, text, buttons) };
  }

  #answerView({ messages }, index, isLast, isWriting) {
    const message = messages[index];
    const answer = shownAnswer(message);
    const body = element("div", { class: this.isStory ? "body plain" : "body" });
    const beginning = this.isStory ? [element("span", { class: "beginning" }, messages[index - 1].content)] : [];
    const footer = element("footer", {});
    const label = this.isStory ? "Story" : "Answer";
    const node = element("article", { class: "message assistant", "aria-label": label, "aria-busy": String(isWriting) }, body, footer);
    const tokens = new TokenView(this.panel, this.stopIds, (at, other) => this.actions.replace(index, at, other));
    const update = () => {
      if (this.showsTokens && answer.tokens.length) {
        tokens.show(answer);
        if (tokens.node.parentNode !== body) body.replaceChildren(...beginning, tokens.node);
      } else if (this.isStory) {
        body.replaceChildren(...beginning, answer.text);
      } else {
        body.replaceChildren(...renderMarkdown(answer.text));
      }
      body.classList.toggle("waiting", isWriting && !answer.text && !answer.tokens.length);
      footer.replaceChildren(...this.#footer(message, index, isLast, isWriting));
    };
    return { node, update };
  }

  #footer(message, index, isLast, isWriting) {
    const answer = shownAnswer(message);
    const said = element("span", { class: "stats" }, statsOf(answer));
    if (isWriting) return [said];
    const actions = [button("Copy", () => navigator.clipboard?.writeText(answer.text), { title: "Copy the text" })];
    if (isLast) actions.push(button("Again", () => this.actions.regenerate(index), { title: "Another answer (r)" }));
    if (isLast && answer.tokens.length && ["length", "stopped", "error"].includes(answer.finish)) {
      actions.push(button("Go on", () => this.actions.goOn(index)));
    }
    if (this.isStory) actions.push(button("Edit the beginning", () => this.edit(index - 1), { title: "(e)" }));
    const error = answer.error ? element("p", { class: "error", role: "alert" }, answer.error) : null;
    return [error, element("div", { class: "actions" }, ...this.#versions(message, index), ...actions, said)].filter(Boolean);
  }

  #versions(message, index) {
    const n = message.versions.length;
    if (n < 2) return [];
    const go = (step) => () => this.actions.showVersion(index, message.shown + step);
    const back = button("‹", go(-1), { "aria-label": "Version before", disabled: message.shown === 0 });
    const on = button("›", go(1), { "aria-label": "Next version", disabled: message.shown === n - 1 });
    return [back, element("span", { class: "stats" }, `${message.shown + 1} of ${n}`), on];
  }
}

function statsOf(answer) {
  const parts = [];
  const rate = tokensPerSecond(answer);
  const n = answer.usage?.completion_tokens ?? answer.tokens.length;
  if (n) parts.push(`${n} tokens`);
  if (rate) parts.push(`${rate.toFixed(1)} tokens/s`);
  if (answer.seconds) parts.push(`first after ${answer.seconds.toFirst.toFixed(2)} s`);
  if (answer.finish === "length") parts.push("cut off at the limit");
  if (answer.finish === "stopped") parts.push("stopped");
  return parts.join(" · ");
}
