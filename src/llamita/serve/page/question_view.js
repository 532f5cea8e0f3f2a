// A question on the page, and the field in which it is edited.

import { button, element } from "./elements.js";

/** actions: edit(index, text) tells whether the text was taken; editorClosed(). */
export class QuestionView {
  #editor = null;

  constructor({ content }, index, { isStory, actions }) {
    Object.assign(this, { content, index, isStory, actions });
    this.body = element("div", { class: "body plain" }, content);
    this.button = button("Edit", () => this.edit(), { title: "Edit and send again (e)" });
    this.buttons = element("div", { class: "actions" }, this.button);
    const label = isStory ? "Beginning" : "You";
    this.node = element("article", { class: "message user", "aria-label": label }, this.body, this.buttons);
  }

  get isEditing() {
    return this.#editor !== null;
  }

  /** Whether this is how a message is drawn. */
  isOf(message, { isStory }) {
    return message.role === "user" && message.content === this.content && isStory === this.isStory;
  }

  update() {}

  edit() {
    this.#editor ??= this.#newEditor();
    this.#editor.focus();
  }

  #newEditor() {
    const text = element("textarea", { rows: Math.min(12, this.content.split("\n").length + 1), "aria-label": "Edit" });
    const send = () => {
      if (this.actions.edit(this.index, text.value)) this.#close();
    };
    const opener = document.activeElement;
    const cancel = () => {
      this.#close();
      opener?.focus();
    };
    text.value = this.content;
    text.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        cancel();
      } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        send();
      }
    });
    const buttons = element("div", { class: "actions" }, button("Send", send), button("Cancel", cancel));
    this.node.replaceChildren(element("div", { class: "editor" }, text, buttons));
    return text;
  }

  #close() {
    this.#editor = null;
    this.node.replaceChildren(this.body, this.buttons);
    this.actions.editorClosed();
  }
}
