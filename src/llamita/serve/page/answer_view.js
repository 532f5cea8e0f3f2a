// An answer on the page: its text or its tokens, how fast it came, and what can be done with it.

import { tokensPerSecond } from "./answer.js";
import { copyButton } from "./clipboard.js";
import { shownAnswer } from "./conversations.js";
import { button, element } from "./elements.js";
import { renderMarkdown } from "./markdown.js";
import { TokenView } from "./token_view.js";

const INSTEAD = { before: "next", next: "before" }; // of a button that there is no longer; of any other "again"

/** actions: regenerate(index), goOn(index), replace(index, tokenIndex, alternative), showVersion(index, n), openEditor(index). */
export class AnswerView {
  #state = null; // {message, beginning, isLast, isWriting, showsTokens}
  #drawn = [];
  #pressed = ""; // the button that had the focus when it went away

  constructor(index, { panel, stopIds, isStory, actions }) {
    Object.assign(this, { index, stopIds, isStory, actions });
    this.body = element("div", { class: isStory ? "body plain" : "body" });
    this.footer = element("footer", {});
    const properties = { class: "message assistant", "aria-label": isStory ? "Story" : "Answer", tabindex: -1 };
    this.node = element("article", properties, this.body, this.footer);
    this.tokens = new TokenView(panel, stopIds, (at, other) => actions.replace(index, at, other));
  }

  /** Whether this can draw a message. */
  isOf(message, { isStory, stopIds }) {
    return message.role !== "user" && isStory === this.isStory && stopIds === this.stopIds;
  }

  /** Draws a message, if anything of it has changed. beginning: of the story. */
  update(state = this.#state) {
    this.#state = state;
    const { message, beginning, isLast, isWriting, showsTokens } = state;
    const answer = shownAnswer(message);
    const { text, finish, error, replaced, tokens, usage } = answer;
    const now = [text, finish, error, replaced, tokens.length, usage?.total_tokens, message.shown, message.versions.length, beginning, isLast, isWriting, showsTokens];
    if (now.length === this.#drawn.length && now.every((value, i) => value === this.#drawn[i])) return;
    this.#drawn = now;
    this.#keepFocus(() => {
      this.#drawBody(answer);
      this.footer.replaceChildren(...this.#footer(answer));
    });
    this.node.setAttribute("aria-busy", String(isWriting));
  }

  #drawBody(answer) {
    const { beginning, isWriting, showsTokens } = this.#state;
    const begun = this.isStory ? [element("span", { class: "beginning" }, beginning)] : [];
    if (showsTokens && answer.tokens.length) {
      this.tokens.show(answer);
      if (this.tokens.node.parentNode !== this.body) this.body.replaceChildren(...begun, this.tokens.node);
    } else if (this.isStory) {
      this.body.replaceChildren(...begun, answer.text);
    } else {
      this.body.replaceChildren(...renderMarkdown(answer.text));
    }
    this.body.classList.toggle("waiting", isWriting && !answer.text && !answer.tokens.length);
  }

  /** Where the button with the focus goes away, the focus waits at the message for it to come back. */
  #keepFocus(draw) {
    const focused = this.node.contains(document.activeElement) ? document.activeElement : null;
    draw();
    const isWaiting = focused === this.node && this.#pressed;
    const isHeld = this.node.contains(document.activeElement) && !isWaiting; // as by tokens, which give it to their successors
    if (!focused || isHeld) return;
    if (focused !== this.node) this.#pressed = focused.dataset.name ?? "";
    const named = (name) => this.footer.querySelector(`[data-name="${name}"]:enabled`);
    const button = this.#pressed ? named(this.#pressed) ?? named(INSTEAD[this.#pressed] ?? "again") : null;
    (button ?? this.node).focus({ preventScroll: true });
    if (button) this.#pressed = "";
  }

  #footer(answer) {
    const { isLast, isWriting } = this.#state;
    const { index, actions } = this;
    const said = element("span", { class: "stats" }, statsOf(answer));
    if (isWriting) return [said];
    const buttons = [copyButton(() => answer.text, { title: "Copy the text", "data-name": "copy" })];
    if (isLast) buttons.push(button("Again", () => actions.regenerate(index), { title: "Another answer (r)", "data-name": "again" }));
    if (isLast && answer.tokens.length && ["length", "stopped", "error"].includes(answer.finish)) {
      buttons.push(button("Go on", () => actions.goOn(index), { "data-name": "on" }));
    }
    if (this.isStory) buttons.push(button("Edit the beginning", () => actions.openEditor(index - 1), { title: "(e)" }));
    const error = answer.error ? element("p", { class: "error", role: "alert" }, answer.error) : null;
    return [error, element("div", { class: "actions" }, ...this.#versions(), ...buttons, said)].filter(Boolean);
  }

  #versions() {
    const { versions, shown } = this.#state.message;
    if (versions.length < 2) return [];
    const go = (step) => () => this.actions.showVersion(this.index, shown + step);
    const back = button("‹", go(-1), { "aria-label": "Version before", "data-name": "before", disabled: shown === 0 });
    const on = button("›", go(1), { "aria-label": "Next version", "data-name": "next", disabled: shown === versions.length - 1 });
    return [back, element("span", { class: "stats" }, `${shown + 1} of ${versions.length}`), on];
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
