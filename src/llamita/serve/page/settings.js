// How answers are drawn: the settings, their bounds, and the sliders that show them. Kept in the browser.

import { element } from "./elements.js";
import { remember } from "./storage.js";

const NAME = "llamita.settings";

// value: where it begins. help says what moving it does
export const SETTINGS = [
  { name: "temperature", label: "Temperature", min: 0, max: 2, step: 0.05, value: 0.8,
    help: "Low: the likeliest words. High: surprises. 0 always takes the likeliest." },
  { name: "top_p", label: "Top-p", min: 0, max: 1, step: 0.01, value: 0.95,
    help: "Draws only from the likeliest tokens that make up this share together. 1: from all." },
  { name: "top_k", label: "Top-k", min: 0, max: 200, step: 1, value: 0, help: "Draws only from so many of the likeliest. 0: from all." },
  { name: "min_p", label: "Min-p", min: 0, max: 1, step: 0.01, value: 0,
    help: "Leaves out tokens that are less likely than this share of the likeliest. 0: none." },
  { name: "max_tokens", label: "Most tokens", min: 0, max: 4096, step: 16, value: 0, help: "Of one answer. 0: as many as fit." },
  { name: "seed", label: "Seed", min: 0, max: 2 ** 31 - 1, step: 1, value: 0, isNumber: true,
    help: "The same seed and settings give the same answer. 0: another each time." },
];

/** The values by name; tells listeners ("change") when one of them is set. */
export class Settings extends EventTarget {
  constructor(storage) {
    super();
    this.storage = storage;
    this.values = Object.fromEntries(SETTINGS.map(({ name, value }) => [name, value]));
    for (const [name, value] of Object.entries(stored(storage))) this.#take(name, value);
  }

  set(name, value) {
    this.#take(name, value);
    this.#tell();
  }

  reset() {
    for (const { name, value } of SETTINGS) this.values[name] = value;
    this.#tell();
  }

  /** The fields of a request; what is 0 for "not set" is left out. */
  request() {
    const { seed, max_tokens, ...sampling } = this.values;
    return { ...sampling, ...(seed && { seed }), ...(max_tokens && { max_tokens }) };
  }

  #take(name, value) {
    const setting = SETTINGS.find((one) => one.name === name);
    if (!setting || typeof value !== "number" || !Number.isFinite(value)) return;
    const isWhole = Number.isInteger(setting.step);
    this.values[name] = Math.min(setting.max, Math.max(setting.min, isWhole ? Math.round(value) : value));
  }

  #tell() {
    remember(this.storage, NAME, JSON.stringify(this.values));
    this.dispatchEvent(new Event("change"));
  }
}

function stored(storage) {
  try {
    return Object(JSON.parse(storage.getItem(NAME)));
  } catch {
    return {};
  }
}

/** The rows of the settings: a slider and a number that say the same. */
export function settingRows(settings) {
  return SETTINGS.map((setting) => settingRow(settings, setting));
}

function settingRow(settings, { name, label, min, max, step, help, isNumber }) {
  const bounds = { min, max, step };
  const onchange = ({ target }) => settings.set(name, target.value === "" ? NaN : Number(target.value));
  const number = element("input", { type: "number", id: `setting-${name}`, "aria-describedby": `help-${name}`, ...bounds, onchange });
  const slider = element("input", { type: "range", "aria-label": label, ...bounds, oninput: onchange });
  const show = () => {
    number.value = slider.value = settings.values[name];
  };
  settings.addEventListener("change", show);
  number.addEventListener("change", show); // what was refused or bounded is shown as it counts
  show();
  const title = element("label", { for: number.id }, label);
  const text = element("p", { class: "help", id: `help-${name}` }, help);
  return element("div", { class: "setting" }, title, number, isNumber ? null : slider, text);
}
