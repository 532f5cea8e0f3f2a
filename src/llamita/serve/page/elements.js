// Elements of the page from plain values. Whatever text comes in stays text: nothing on this page parses HTML.

/** An element. Properties that begin with "on" are listeners, the others attributes; false and null leave one out. */
export function element(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** A button. */
export function button(label, onclick, properties = {}) {
  return element("button", { type: "button", onclick, ...properties }, label);
}

/** Makes some elements the children of another. What is among them already stays, and what has the focus is not even moved. */
export function setChildren(parent, nodes) {
  const wanted = new Set(nodes);
  for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
  let place = parent.firstElementChild;
  for (const node of nodes) {
    while (place && place !== node && node.parentNode === parent && node.contains(document.activeElement)) {
      const moved = place; // behind it, from where its turn to be placed takes it
      place = place.nextElementSibling;
      parent.append(moved);
    }
    if (node === place) place = place.nextElementSibling;
    else parent.insertBefore(node, place);
  }
}

/** The element with an id, which index.html has. */
export function byId(id) {
  return document.getElementById(id);
}
