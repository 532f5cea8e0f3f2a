// The keys of the page. Single letters count only while no text is being written; Escape first leaves a text.

import { element } from "./elements.js";

const WRITTEN = [
  ["Enter", "send"], ["Shift+Enter", "new line"], ["↑", "edit the last question, in an empty field"], ["Escape", "stop; close; leave the field"],
];

/** keys: {letter: [what it does, function]}; onEscape(isInText). */
export function listenToKeys(keys, onEscape) {
  addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open]")) return;
    const isInText = event.target.matches?.("textarea, select, input:not([type=range])");
    if (event.key === "Escape") onEscape(isInText);
    else if (!isInText && !event.ctrlKey && !event.metaKey && !event.altKey && Object.hasOwn(keys, event.key)) {
      event.preventDefault();
      keys[event.key][1]();
    }
  });
}

/** The keys as terms and descriptions. */
export function keyList(keys) {
  const letters = Object.entries(keys).map(([key, [text]]) => [key, text]);
  return [...WRITTEN, ...letters].flatMap(([key, text]) => [element("dt", {}, element("kbd", {}, key)), element("dd", {}, text)]);
}
