// The Markdown that models write, as elements: headings, lists, quotes, code, tables, paragraphs. HTML in it stays text.
//
// parseBlocks makes a tree of plain values, renderMarkdown elements of it, with nothing but text nodes in them. A text is drawn
// again with each token that comes, so no line may cost more than its length: expressions here have no two repetitions in a row
// that match the same characters, and what they would need those for is done by hand.

import { copyButton } from "./clipboard.js";
import { element } from "./elements.js";
import { parseInline } from "./inline_markdown.js";

const MAX_DEPTH = 6; // of lists and quotes in each other
const FENCE = /^ {0,3}(`{3,}|~{3,})/;
const HEADING = /^ {0,3}(#{1,6})\s/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?: +(.*)|)$/s;
const TABLE_CELL = /^:?-+:?$/;

/** The elements of a text. */
export function renderMarkdown(text) {
  return parseBlocks(text.split(/\r?\n/), 0).map(render);
}

/** The blocks of some lines: {name, children, ...}, in which texts are texts. */
export function parseBlocks(lines, depth = 0) {
  const blocks = [];
  for (let i = 0; i < lines.length; ) {
    if (!lines[i].trim()) {
      i += 1;
      continue;
    }
    const [block, end] = readBlock(lines, i, depth);
    blocks.push(block);
    i = end;
  }
  return blocks;
}

function readBlock(lines, i, depth) {
  const fence = fenceOf(lines[i]);
  if (fence) return readFence(lines, i, fence);
  const heading = HEADING.exec(lines[i]);
  if (heading) return [{ name: `h${heading[1].length}`, children: parseInline(headingText(lines[i].slice(heading[0].length))) }, i + 1];
  if (RULE.test(lines[i])) return [{ name: "hr", children: [] }, i + 1];
  if (depth < MAX_DEPTH && QUOTE.test(lines[i])) return readQuote(lines, i, depth);
  if (depth < MAX_DEPTH && ITEM.test(lines[i])) return readList(lines, i, depth);
  if (lines[i].includes("|") && isTableLine(lines[i + 1] ?? "")) return readTable(lines, i);
  return readParagraph(lines, i);
}

/** A heading without the #s that close it; those behind a space do. */
function headingText(rest) {
  const text = rest.trim();
  let end = text.length;
  while (text[end - 1] === "#") end -= 1;
  return end === 0 || /\s/.test(text[end - 1]) ? text.slice(0, end).trimEnd() : text;
}

/** {mark, language} of a line that begins code, or null. */
function fenceOf(line) {
  const found = FENCE.exec(line);
  const rest = line.slice(found?.[0].length);
  return found && !rest.includes("`") ? { mark: found[1], language: /^\s*([\w+#.-]*)/.exec(rest)[1] } : null;
}

/** Whether a line says that the one before it is a table's head: | :-- | --- |. */
function isTableLine(line) {
  if (!line.includes("-") || !/^ {0,3}\S/.test(line)) return false;
  return innerCells(line).every((cell) => TABLE_CELL.test(cell.trim()));
}

/** Code up to its fence, or to the end while the model still writes it. */
function readFence(lines, start, { mark: fence, language }) {
  const closing = (line) => line.trim().startsWith(fence) && !line.trim().slice(fence.length).replaceAll(fence[0], "");
  let end = start + 1;
  while (end < lines.length && !closing(lines[end])) end += 1;
  return [{ name: "pre", language, children: [lines.slice(start + 1, end).join("\n")] }, end + 1];
}

function readQuote(lines, start, depth) {
  let end = start;
  while (end < lines.length && QUOTE.test(lines[end])) end += 1;
  const inner = lines.slice(start, end).map((line) => line.replace(QUOTE, ""));
  return [{ name: "blockquote", children: parseBlocks(inner, depth + 1) }, end];
}

function readList(lines, start, depth) {
  const [, indent, mark] = ITEM.exec(lines[start]);
  const isOrdered = /\d/.test(mark);
  const isItem = (line) => {
    const found = ITEM.exec(line);
    return found && found[1].length < indent.length + 2 && /\d/.test(found[2]) === isOrdered && !RULE.test(line);
  };
  const items = [];
  let i = start;
  while (i < lines.length && isItem(lines[i])) {
    const [item, end] = readItem(lines, i, depth);
    items.push(item);
    i = end;
    if (!lines[i]?.trim() && isItem(lines[i + 1] ?? "")) i += 1; // a list may have empty lines
  }
  const first = isOrdered ? Number.parseInt(mark, 10) : null;
  return [{ name: isOrdered ? "ol" : "ul", start: first, children: items }, i];
}

/** An item, with the lines below it that stand further in. */
function readItem(lines, start, depth) {
  const [, indent, mark, text = ""] = ITEM.exec(lines[start]);
  const inner = [text];
  const width = indent.length + mark.length + 1;
  let i = start + 1;
  for (; i < lines.length; i += 1) {
    const line = lines[i];
    const isInside = /^\s*/.exec(line)[0].length >= Math.min(width, indent.length + 2);
    const isEmptyBefore = !line.trim() && /^\s/.test(lines[i + 1] ?? "");
    if (!isEmptyBefore && (!line.trim() || !isInside)) break;
    inner.push(line.slice(Math.min(width, /^\s*/.exec(line)[0].length)));
  }
  const blocks = parseBlocks(inner, depth + 1);
  const isTight = blocks[0]?.name === "p";
  return [{ name: "li", children: isTight ? [...blocks[0].children, ...blocks.slice(1)] : blocks }, i];
}

function readTable(lines, start) {
  const cells = (line) => innerCells(line).map((cell) => cell.trim().replaceAll("\\|", "|"));
  const row = (line, name) => ({ name: "tr", children: cells(line).map((cell) => ({ name, children: parseInline(cell) })) });
  let end = start + 2;
  while (end < lines.length && lines[end].includes("|")) end += 1;
  const head = { name: "thead", children: [row(lines[start], "th")] };
  const body = { name: "tbody", children: lines.slice(start + 2, end).map((line) => row(line, "td")) };
  return [{ name: "table", children: [head, body] }, end];
}

/** The cells of a table's line; it may begin and end with a bar or not. */
function innerCells(line) {
  return line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/);
}

function readParagraph(lines, start) {
  const begins = (line) => fenceOf(line) || HEADING.test(line) || QUOTE.test(line) || RULE.test(line) || /^ {0,3}([-*+]|1[.)]) /.test(line);
  let end = start + 1;
  while (end < lines.length && lines[end].trim() && !begins(lines[end])) end += 1;
  const text = lines.slice(start, end).map((line) => line.trimStart()).join("\n").trimEnd();
  return [{ name: "p", children: parseInline(text) }, end];
}

function render(node) {
  if (typeof node === "string") return document.createTextNode(node);
  if (node.name === "pre") return renderCode(node);
  const children = node.children.map(render);
  if (node.name === "a") return element("a", { href: node.href, target: "_blank", rel: "noopener noreferrer" }, ...children);
  if (node.name === "table") return element("div", { class: "table" }, element("table", {}, ...children));
  return element(node.name, { start: node.start }, ...children);
}

function renderCode({ language, children }) {
  const [code] = children;
  const copy = copyButton(() => code, { class: "copy" });
  const bar = element("div", { class: "code-bar" }, element("span", {}, language), copy);
  return element("div", { class: "code" }, bar, element("pre", {}, element("code", {}, code)));
}
