// The marks inside a line of Markdown: code, emphasis, links. Text in, a tree of plain values out; markdown.js makes elements.
//
// A node is a text, or {name, children, href}. A mark that does not close, or a link to anything but the web, is text.

const MAX_DEPTH = 8;
const MARKS = [["**", "strong"], ["__", "strong"], ["~~", "del"], ["*", "em"], ["_", "em"]];
const MAX_LINK_CHARACTERS = 2048; // so that what looks like one link after the other is not read to its end for each
const SPECIAL = /[\\`*_~[!<\n]|https?:\/\//g;
const BARE_LINK = new RegExp(`https?://[^\\s<>"'\`]{1,${MAX_LINK_CHARACTERS}}`, "y");
const ANGLE_LINK = new RegExp(`<(https?://[^\\s<>]{1,${MAX_LINK_CHARACTERS}})>`, "y");
const WORD = /[\p{L}\p{N}]/u;

/** The nodes of a text. */
export function parseInline(text, depth = 0) {
  if (depth > MAX_DEPTH) return [text];
  const nodes = [];
  const ahead = new Map(); // by mark, where it comes next, -1 for nowhere: nothing is looked for twice, so hostile texts cost no more
  let plainFrom = 0;
  SPECIAL.lastIndex = 0;
  for (let position = nextSpecial(text, 0); position < text.length; ) {
    const found = readSpan(text, position, depth, ahead);
    if (found) {
      if (position > plainFrom) nodes.push(text.slice(plainFrom, position));
      nodes.push(found.node);
      plainFrom = found.end;
    }
    position = nextSpecial(text, found ? found.end : skipRun(text, position));
  }
  if (plainFrom < text.length) nodes.push(text.slice(plainFrom));
  return nodes;
}

/** Whether a link may be followed: to the web, and nowhere else. */
export function isWebLink(href) {
  try {
    return ["http:", "https:"].includes(new URL(href).protocol);
  } catch {
    return false; // relative links would lead into this server
  }
}

function nextSpecial(text, from) {
  SPECIAL.lastIndex = from;
  return SPECIAL.exec(text)?.index ?? text.length;
}

/** The end of a run of the same mark, so that "****" is not looked at four times. */
function skipRun(text, position) {
  let end = position + 1;
  while ("*_~`".includes(text[position]) && text[end] === text[position]) end += 1;
  return end;
}

function readSpan(text, position, depth, ahead) {
  switch (text[position]) {
    case "\\":
      return readEscape(text, position);
    case "\n":
      return readBreak(text, position);
    case "`":
      return readCode(text, position, ahead);
    case "<":
    case "h":
      return readBareLink(text, position);
    case "!":
      return text[position + 1] === "[" ? readLink(text, position + 1, depth, ahead) : null;
    case "[":
      return readLink(text, position, depth, ahead);
    default:
      return readMark(text, position, depth, ahead);
  }
}

function readEscape(text, position) {
  const next = text[position + 1];
  if (next === "\n") return { node: { name: "br", children: [] }, end: position + 2 };
  return next && /[!-/:-@[-`{-~]/.test(next) ? { node: next, end: position + 2 } : null;
}

/** Two spaces at the end of a line break it. */
function readBreak(text, position) {
  return text.endsWith("  ", position) ? { node: { name: "br", children: [] }, end: position + 1 } : null;
}

function readCode(text, position, ahead) {
  let start = position;
  while (text[start] === "`") start += 1;
  const fence = text.slice(position, start);
  if (ahead.get(fence) === -1) return null;
  for (let end = text.indexOf(fence, start); end !== -1; end = text.indexOf(fence, end)) {
    let after = end;
    while (text[after] === "`") after += 1;
    if (after - end === fence.length) {
      const code = text.slice(start, end).replaceAll("\n", " ");
      const trimmed = code.startsWith(" ") && code.endsWith(" ") && code.trim() ? code.slice(1, -1) : code;
      return { node: { name: "code", children: [trimmed] }, end: after };
    }
    end = after;
  }
  ahead.set(fence, -1);
  return null;
}

function readBareLink(text, position) {
  ANGLE_LINK.lastIndex = BARE_LINK.lastIndex = position;
  const angle = ANGLE_LINK.exec(text);
  if (angle) return isWebLink(angle[1]) ? { node: link(angle[1], [angle[1]]), end: position + angle[0].length } : null;
  const bare = WORD.test(text[position - 1] ?? "") ? null : BARE_LINK.exec(text);
  if (!bare || bare[0].length >= MAX_LINK_CHARACTERS) return null;
  const href = trimmedLink(bare[0]);
  return isWebLink(href) ? { node: link(href, [href]), end: position + href.length } : null;
}

/** A link without the punctuation that ends the sentence around it. */
function trimmedLink(href) {
  let end = href.length;
  while (".,;:!?*_~".includes(href[end - 1])) end -= 1;
  const trimmed = href.slice(0, end);
  return trimmed.endsWith(")") && !trimmed.includes("(") ? trimmed.slice(0, -1) : trimmed;
}

function readLink(text, position, depth, ahead) {
  let middle = ahead.get("](") ?? 0;
  if (middle !== -1 && middle <= position) ahead.set("](", (middle = text.indexOf("](", position)));
  const inner = text.indexOf("[", position + 1);
  if (middle === -1 || (inner !== -1 && inner < middle)) return null;
  const end = closingParenthesis(text, middle + 2);
  if (end === -1) return null;
  const label = text.slice(position + 1, middle);
  const href = withoutTitle(text.slice(middle + 2, end).trim()).replace(/^<(.*)>$/, "$1");
  if (!isWebLink(href)) return null;
  return { node: link(href, parseInline(label || href, depth + 1)), end: end + 1 };
}

/** Where a link leads: [text](address "title"). */
function withoutTitle(target) {
  const title = target.search(/\s["'(]/);
  return title === -1 ? target : target.slice(0, title).trimEnd();
}

function closingParenthesis(text, from) {
  let depth = 0;
  for (let i = from; i < Math.min(text.length, from + MAX_LINK_CHARACTERS); i += 1) {
    if (text[i] === "(") depth += 1;
    else if (text[i] === ")" && depth-- === 0) return i;
    else if (text[i] === "\n") return -1;
  }
  return -1;
}

function readMark(text, position, depth, ahead) {
  for (const [mark, name] of MARKS) {
    if (!text.startsWith(mark, position)) continue;
    const start = position + mark.length;
    const isInWord = mark[0] === "_" && WORD.test(text[position - 1] ?? "");
    if (ahead.get(mark) === -1 || isInWord || /\s/.test(text[start] ?? " ")) continue;
    const end = closingMark(text, start, mark);
    if (end === -1) ahead.set(mark, -1);
    else return { node: { name, children: parseInline(text.slice(start, end), depth + 1) }, end: end + mark.length };
  }
  return null;
}

function closingMark(text, start, mark) {
  for (let end = text.indexOf(mark, start + 1); end !== -1; end = text.indexOf(mark, end + 1)) {
    if (/[\s\\]/.test(text[end - 1])) continue;
    const after = text[end + mark.length] ?? "";
    if (mark[0] === "_" && WORD.test(after)) continue;
    if (mark.length === 1 && (after === mark || text[end - 1] === mark)) continue; // it belongs to a double one
    if (mark.length === 2 && after === mark[0]) continue;
    return end;
  }
  return -1;
}

function link(href, children) {
  return { name: "a", href, children };
}
