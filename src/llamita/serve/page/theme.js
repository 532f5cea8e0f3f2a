// Light or dark: as the system has it, until the reader says otherwise. Runs before the page is drawn, so that nothing flashes.

{
  const NAME = "llamita.theme";
  const THEMES = ["system", "light", "dark"];
  const root = document.documentElement;
  const orNothing = (act) => {
    try {
      return act();
    } catch {
      return null; // the browser keeps nothing for this page, which main.js says
    }
  };
  root.dataset.theme = THEMES.find((theme) => theme === orNothing(() => localStorage.getItem(NAME))) ?? "system";

  addEventListener("DOMContentLoaded", () => {
    const choice = document.getElementById("theme");
    choice.value = root.dataset.theme;
    choice.addEventListener("change", () => {
      root.dataset.theme = choice.value;
      orNothing(() => localStorage.setItem(NAME, choice.value));
    });
  });
}
