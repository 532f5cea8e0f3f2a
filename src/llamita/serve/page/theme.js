// Light or dark: as the system has it, until the reader says otherwise. Runs before the page is drawn, so that nothing flashes.

{
  const NAME = "llamita.theme";
  const THEMES = ["system", "light", "dark"];
  const root = document.documentElement;
  root.dataset.theme = THEMES.find((theme) => theme === localStorage.getItem(NAME)) ?? "system";

  addEventListener("DOMContentLoaded", () => {
    const choice = document.getElementById("theme");
    choice.value = root.dataset.theme;
    choice.addEventListener("change", () => {
      root.dataset.theme = choice.value;
      localStorage.setItem(NAME, choice.value);
    });
  });
}
