// The tokens of an answer, each shaded by how likely it was, and a panel with what else could have stood in its place.
//
// Tokens are drawn as they come. The keys left and right walk along them, down goes into the panel; Enter, click or tap keeps it open.
// They are spans, not buttons: a button is a box of its own, in which a line may break but outside of which none does.

import { alternativesOf } from "./answer.js";
import { byId, element } from "./elements.js";
import { drawnShares, probabilityOf } from "./sampling.js";

const HIDE_MILLISECONDS = 250; // so that the pointer finds its way from a token into the panel
const MARGIN_PIXELS = 8;
const SPOKEN = { " ": "space", "\n": "line break", "\t": "tab" };
const CUT_NAMES = { temperature: "temp. 0", top_k: "top-k", top_p: "top-p", min_p: "min-p" };

/** Shows the tokens of one answer in an element of its own. */
export class TokenView {
  #answer = null;

  /** onReplace(index, alternative): the reader wants another token. */
  constructor(panel, stopIds, onReplace) {
    Object.assign(this, { panel, stopIds, onReplace });
    this.node = element("div", { class: "tokens", role: "group", "aria-label": "Tokens of the answer" });
    this.node.addEventListener("keydown", (event) => this.#walk(event));
  }

  /** Shows an answer; one that has grown costs only what is new. */
  show(answer) {
    const focused = [...this.node.children].indexOf(document.activeElement);
    if (!this.#isBeginningOf(answer)) this.node.replaceChildren();
    this.#answer = answer;
    const first = this.node.childElementCount;
    this.node.append(...answer.tokens.slice(first).map((token, i) => this.#tokenNode(token, first + i)));
    if (focused !== -1 && first === 0) this.#focus(this.node.children[focused]); // another answer, at the same place
  }

  /** Whether what is drawn are the first tokens of an answer. */
  #isBeginningOf(answer) {
    const n = this.node.childElementCount;
    if (answer === this.#answer) return n <= answer.tokens.length;
    const isSame = ({ id, logprob }, i) => id === answer.tokens[i]?.id && logprob === answer.tokens[i].logprob;
    return answer.replaced === this.#answer?.replaced && this.#answer.tokens.slice(0, n).every(isSame);
  }

  #focus(token) {
    if (!token) return;
    for (const node of this.node.children) node.tabIndex = -1;
    token.tabIndex = 0;
    this.panel.inSilence(() => token.focus({ preventScroll: true }));
  }

  #tokenNode(token, index) {
    const probability = probabilityOf(token.logprob);
    const label = this.stopIds.has(token.id) ? "■ end" : token.text;
    const node = element("span", {
      class: index === this.#answer.replaced ? "token chosen" : "token",
      role: "button",
      tabindex: index === 0 ? 0 : -1,
      "aria-label": `${spoken(label)}, ${percent(probability)}`,
      onclick: () => this.#open(node, index, true),
      onpointerenter: (event) => event.pointerType === "mouse" && this.#open(node, index, false),
      onpointerleave: () => this.panel.hideSoon(),
      onfocus: () => node.matches(":focus-visible") && this.#open(node, index, false),
    }, visible(label, "⏎\n")); // a line still breaks where it did
    node.style.setProperty("--doubt", (1 - probability).toFixed(3));
    return node;
  }

  #open(node, index, isPinned) {
    const token = this.#answer.tokens[index];
    this.panel.show(node, token, this.stopIds, isPinned, (other) => this.onReplace(index, other));
  }

  #walk(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const from = event.target.closest(".token");
    const opens = ["Enter", " ", "ArrowDown"].includes(event.key);
    if (!from || !(step || opens)) return;
    event.preventDefault();
    if (opens) return from.click();
    const to = step > 0 ? from.nextElementSibling : from.previousElementSibling;
    if (!to) return;
    from.tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  }
}

/** The one panel of the page; it follows the settings while it is open. */
export class AlternativesPanel {
  #shown = null;
  #timer = 0;
  #isSilent = false;

  constructor(settings) {
    this.node = byId("alternatives");
    this.settings = settings;
    settings.addEventListener("change", () => this.#draw());
    this.node.addEventListener("pointerenter", () => clearTimeout(this.#timer));
    this.node.addEventListener("pointerleave", () => this.hideSoon());
    this.node.addEventListener("focusin", () => this.#shown && (this.#shown.isPinned = true));
    this.node.addEventListener("keydown", (event) => this.#walk(event));
    addEventListener("pointerdown", ({ target }) => {
      if (!this.node.contains(target) && !target.closest?.("#settings, .token")) this.hide();
    });
    addEventListener("resize", () => this.hide());
    byId("messages").addEventListener("scroll", () => this.hide());
  }

  get isOpen() {
    return !this.node.hidden;
  }

  #walk(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const rows = [...this.node.querySelectorAll("button:enabled")];
    rows.at((rows.indexOf(document.activeElement) + step) % rows.length)?.focus();
  }

  /** Opens at a token; pinned, it stays until the reader looks elsewhere. */
  show(anchor, token, stopIds, isPinned, onChoose) {
    clearTimeout(this.#timer);
    if (this.#isSilent || (this.#shown?.isPinned && !isPinned)) return;
    this.#shown?.anchor.classList.remove("open");
    this.#shown = { anchor, token, stopIds, isPinned, onChoose };
    anchor.classList.add("open");
    this.#draw();
    this.node.hidden = false;
    this.#place(anchor);
    if (isPinned) (this.node.querySelector("button:enabled") ?? this.node).focus({ preventScroll: true });
  }

  /** Does something with the focus without opening at the token that gets it. */
  inSilence(act) {
    this.#isSilent = true;
    act();
    this.#isSilent = false;
  }

  hideSoon() {
    clearTimeout(this.#timer);
    if (this.#shown && !this.#shown.isPinned) this.#timer = setTimeout(() => this.hide(), HIDE_MILLISECONDS);
  }

  hide() {
    clearTimeout(this.#timer);
    const anchor = this.node.contains(document.activeElement) ? this.#shown?.anchor : null;
    this.inSilence(() => anchor?.focus({ preventScroll: true }));
    this.#shown?.anchor.classList.remove("open");
    this.#shown = null;
    this.node.hidden = true;
  }

  /** Closes where the token that it is open at is no longer on the page. */
  hideIfLost() {
    if (this.#shown && !this.#shown.anchor.isConnected) this.hide();
  }

  #draw() {
    if (!this.#shown) return;
    const { token, stopIds, onChoose } = this.#shown;
    const others = alternativesOf(token);
    const { shares, rest } = drawnShares(others.map(({ logprob }) => logprob), this.settings.values);
    const rows = others.map((other, i) => {
      const choose = () => {
        this.hide();
        onChoose(other);
      };
      return rowOf(other, shares[i], other.id === token.id, stopIds.has(other.id), choose);
    });
    const known = others.reduce((sum, { logprob }) => sum + probabilityOf(logprob), 0);
    const head = element("div", { class: "row head" }, ...cellsOf("Token", "", "Model", "Drawn"));
    const tail = element("div", { class: "row rest" }, ...cellsOf("all others", "", percent(Math.max(0, 1 - known)), percent(rest)));
    const text = "“Model” is what the model thinks, “Drawn” what your settings make of it. Choose a token to go on from it.";
    this.node.replaceChildren(head, ...rows, tail, element("p", { class: "help" }, text));
  }

  /** Below the token, or above it where more room is: never on it, in however many lines it stands. */
  #place(anchor) {
    const lines = [...anchor.getClientRects()];
    const at = { top: lines[0].top, bottom: lines.at(-1).bottom, left: lines.at(-1).left };
    const style = this.node.style;
    style.maxHeight = "";
    const { offsetWidth: width, offsetHeight: height } = this.node;
    const [above, below] = [at.top - 2 * MARGIN_PIXELS, innerHeight - at.bottom - 2 * MARGIN_PIXELS];
    const isBelow = height <= below || below >= above;
    style.maxHeight = `${isBelow ? below : above}px`;
    style.left = `${Math.max(MARGIN_PIXELS, Math.min(at.left, innerWidth - width - MARGIN_PIXELS))}px`;
    style.top = `${isBelow ? at.bottom + MARGIN_PIXELS / 2 : at.top - MARGIN_PIXELS / 2 - Math.min(height, above)}px`;
  }
}

function rowOf(other, { probability, cut }, isCurrent, isEnd, onclick) {
  const model = probabilityOf(other.logprob);
  const bar = element("span", { class: "share", "aria-hidden": "true" });
  bar.style.setProperty("--model", model.toFixed(4));
  bar.style.setProperty("--drawn", probability.toFixed(4));
  const drawn = cut ? `cut by ${CUT_NAMES[cut]}` : percent(probability);
  const name = element("span", { class: "piece" }, isEnd ? "■ end of the text" : visible(other.text));
  const label = `${isEnd ? "end of the text" : spoken(other.text)}, model ${percent(model)}, ${cut ? "" : "drawn "}${drawn}`;
  const properties = {
    class: `row${cut ? " cut" : ""}`, title: `Token ${other.id}`, "aria-label": label, disabled: isCurrent, "aria-current": isCurrent && "true",
  };
  return element("button", { type: "button", onclick, ...properties }, name, bar, ...cellsOf(percent(model), drawn));
}

function cellsOf(...texts) {
  return texts.map((text) => element("span", {}, text));
}

/** A token's text in words where there is nothing but white space in it. */
function spoken(text) {
  if (text.trim()) return text.trim().replaceAll("\n", " line break ");
  const runs = text.match(/([^])\1*/g) ?? [];
  const names = runs.map((run) => {
    const name = SPOKEN[run[0]] ?? "white space";
    return run.length > 1 && name !== "white space" ? `${run.length} ${name}s` : name;
  });
  return names.join(", ") || "nothing";
}

/** White space that can be seen. */
function visible(text, lineBreak = "⏎") {
  return text.replaceAll("\n", lineBreak).replaceAll("\t", "⇥") || "∅";
}

function percent(probability) {
  if (probability > 0 && probability < 0.001) return "< 0.1 %";
  return `${(100 * probability).toFixed(1)} %`;
}
