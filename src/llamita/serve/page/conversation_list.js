// The list of conversations at the side: open, rename, delete. A title that is being typed stays while the list changes around it.

import { byId, button, element, setChildren } from "./elements.js";

/** actions: open(id), rename(id, title), remove(id). */
export class ConversationList {
  #rows = new Map(); // by id

  constructor(actions) {
    Object.assign(this, { node: byId("conversations"), actions });
  }

  /** Draws the entries {id, title}; current is the id of the one that is open. */
  show(entries, current) {
    const place = [...this.node.children].findIndex((row) => row.contains(document.activeElement));
    const rows = entries.map((entry) => this.#rows.get(entry.id) ?? new Row(entry.id, this.actions));
    this.#rows = new Map(rows.map((row) => [row.id, row]));
    entries.forEach((entry, i) => rows[i].show(entry.title, entry.id === current));
    setChildren(this.node, rows.map((row) => row.node));
    if (place === -1 || this.node.contains(document.activeElement)) return;
    (rows.at(place) ?? rows.at(-1))?.focus(); // the row of the focus is gone
  }
}

class Row {
  #isEditing = false;

  constructor(id, actions) {
    Object.assign(this, { id, actions, title: "", node: element("li", {}) });
    this.open = button("", () => actions.open(id), { class: "open" });
    this.rename = button("✎", () => this.#edit(), { title: "Rename" });
    this.remove = button("✕", () => actions.remove(id), { title: "Delete" });
    this.node.append(this.open, this.rename, this.remove);
  }

  show(title, isCurrent) {
    const name = title || "Untitled";
    this.title = title;
    this.open.textContent = this.open.title = name;
    this.rename.setAttribute("aria-label", `Rename ${name}`);
    this.remove.setAttribute("aria-label", `Delete ${name}`);
    this.node.className = isCurrent ? "current" : "";
    if (isCurrent) this.open.setAttribute("aria-current", "page");
    else this.open.removeAttribute("aria-current");
  }

  focus() {
    this.open.focus();
  }

  #edit() {
    const input = element("input", { "aria-label": "Title" });
    input.value = this.title;
    this.#isEditing = true;
    input.addEventListener("blur", () => this.#end(input.value));
    input.addEventListener("keydown", (event) => {
      event.stopPropagation();
      const isKept = event.key === "Enter" && !event.isComposing;
      if (!isKept && event.key !== "Escape") return;
      event.preventDefault(); // Enter would press the button that gets the focus
      this.#end(isKept ? input.value : "");
      this.rename.focus();
    });
    this.node.replaceChildren(input);
    input.focus();
    input.select();
  }

  /** Ends the editing, once: taking away a field that has the focus blurs it. */
  #end(text) {
    if (!this.#isEditing) return;
    this.#isEditing = false;
    this.node.replaceChildren(this.open, this.rename, this.remove);
    const title = text.trim();
    if (title && title !== this.title) this.actions.rename(this.id, title);
  }
}
