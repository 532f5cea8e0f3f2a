// The panes at both sides: always there on a wide screen, above the talk on a narrow one. One button opens each.

import { byId } from "./elements.js";

const NARROW = matchMedia("(max-width: 50rem)");

/** Whether panes lie above the talk. */
export function isNarrow() {
  return NARROW.matches;
}

/** Makes the buttons of the panes work. */
export function setUpPanes() {
  byId("show-sidebar").addEventListener("click", () => toggleSidebar());
  byId("show-settings").addEventListener("click", () => toggleSettings());
  byId("hide-settings").addEventListener("click", () => toggleSettings(false));
  document.querySelector("main").addEventListener("pointerdown", ({ target }) => {
    if (isNarrow() && !target.closest("#show-sidebar, #show-settings")) closePanes();
  });
}

/** Opens or closes the conversations, on a narrow screen. */
export function toggleSidebar(isOpen = !byId("sidebar").classList.contains("open")) {
  byId("sidebar").classList.toggle("open", isOpen);
  byId("show-sidebar").setAttribute("aria-expanded", String(isOpen));
  if (isOpen && isNarrow()) toggleSettings(false);
}

/** Opens or closes the settings. */
export function toggleSettings(isOpen = byId("settings").hidden) {
  byId("settings").hidden = !isOpen;
  byId("show-settings").setAttribute("aria-expanded", String(isOpen));
  if (isOpen && isNarrow()) toggleSidebar(false);
}

/** Closes what is open; whether anything was. */
export function closePanes() {
  const wasOpen = !byId("settings").hidden || byId("sidebar").classList.contains("open");
  toggleSettings(false);
  toggleSidebar(false);
  return wasOpen;
}
