// Short notices above the composer, some with something to do about it, and the question for the API key.

import { isSendableKey } from "./api.js";
import { byId, button, element } from "./elements.js";

const SECONDS = 10;

/** Shows a notice for a while; returns a function that takes it away. action: {label, run}. */
export function notify(text, action = null, seconds = SECONDS) {
  const close = () => node.remove();
  const run = () => {
    close();
    action.run();
  };
  const node = element("div", { class: "notice" }, element("span", {}, text), action && button(action.label, run));
  node.append(button("✕", close, { "aria-label": "Close" }));
  byId("notices").append(node);
  if (seconds) setTimeout(close, seconds * 1000);
  return close;
}

/** Asks for the key in a dialog; resolves to it, or to null. A key that no request could carry is refused there. */
export function askKey(isWrong) {
  const dialog = byId("key-dialog");
  const input = byId("key");
  byId("key-text").textContent = isWrong ? "The server does not take this key." : "This server wants a key.";
  const error = byId("key-error");
  input.value = error.textContent = "";
  input.oninput = () => (error.textContent = "");
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.querySelector("form").onsubmit = (event) => {
      event.preventDefault();
      const key = input.value.trim();
      if (isSendableKey(key)) dialog.close(key);
      else error.textContent = "A key holds letters, digits and signs of ASCII only: no spaces, accents or curly quotes.";
    };
    byId("key-cancel").onclick = () => dialog.close("");
    dialog.onclose = () => resolve(dialog.returnValue || null);
    dialog.oncancel = () => (dialog.returnValue = "");
  });
}
