// Buttons that copy a text. Browsers give a page over plain http no clipboard, but on this machine itself: there a selection is copied.

import { button } from "./elements.js";
import { notify } from "./notices.js";

const SHOWN_MILLISECONDS = 1500;

/** A button that copies what text() gives when it is pressed, and says whether that went well. */
export function copyButton(text, properties = {}) {
  const copy = async () => {
    if (!(await copied(text()))) {
      notify("The browser does not let this page copy. Select the text and copy it by hand.");
      return;
    }
    node.textContent = "Copied";
    setTimeout(() => (node.textContent = "Copy"), SHOWN_MILLISECONDS);
  };
  const node = button("Copy", copy, properties);
  return node;
}

/** Whether a text could be copied. */
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copiedBySelection(text); // there is no clipboard, or it is forbidden
  }
}

function copiedBySelection(text) {
  const focused = document.activeElement;
  const field = document.createElement("textarea");
  field.className = "copied";
  field.value = text;
  document.body.append(field);
  field.select();
  const isCopied = document.execCommand("copy");
  field.remove();
  focused?.focus({ preventScroll: true });
  return isCopied;
}
