// The list of conversations at the side: open, rename, delete.

import { byId, button, element } from "./elements.js";

/** actions: open(id), rename(id, title), remove(id). */
export class ConversationList {
  constructor(actions) {
    Object.assign(this, { node: byId("conversations"), actions });
  }

  /** Draws the entries {id, title}; current is the id of the one that is open. */
  show(entries, current) {
    this.node.replaceChildren(...entries.map((entry) => this.#row(entry, entry.id === current)));
  }

  #row({ id, title }, isCurrent) {
    const name = title || "Untitled";
    const open = button(name, () => this.actions.open(id), { class: "open", title: name, "aria-current": isCurrent && "page" });
    const rename = button("✎", () => row.replaceChildren(this.#editor(id, title)), { "aria-label": `Rename ${name}`, title: "Rename" });
    const remove = button("✕", () => this.actions.remove(id), { "aria-label": `Delete ${name}`, title: "Delete" });
    const row = element("li", { class: isCurrent ? "current" : "" }, open, rename, remove);
    return row;
  }

  #editor(id, title) {
    const input = element("input", { "aria-label": "Title" });
    input.value = title;
    let isDone = false;
    const end = (isKept) => {
      if (isDone) return;
      isDone = true;
      this.actions.rename(id, isKept ? input.value.trim() || title : title);
    };
    input.addEventListener("blur", () => end(true));
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.isComposing) end(true);
      if (event.key === "Escape") end(false);
      event.stopPropagation();
    });
    queueMicrotask(() => input.select());
    return input;
  }
}
