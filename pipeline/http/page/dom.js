// Elements from values. All text is set as text: what comes from topics, messages and servers never becomes HTML.

export const byId = (id) => document.getElementById(id);

// Characters that nobody sees, or that turn what follows around, as escapes; line breaks where lines are shown.
const visible = (text, lines = false) => text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu,
  (one) => (lines && (one === "\n" || one === "\t") ? one : `\\u{${one.codePointAt(0).toString(16)}}`));

// An element with attributes; children are elements or texts.
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.map((child) => (typeof child === "string" ? visible(child) : child)));
  return made;
}

// Sets a text only where it differs, so that a screen reader says nothing twice and a selection is kept.
export function setText(node, text) {
  const shown = visible(text, node.localName === "pre");
  if (node.textContent !== shown) node.textContent = shown;
}

export function setClass(node, name) {
  if (node.className !== name) node.className = name;
}

// Makes the children of a node those of a list. One that stays is kept, with its focus. `make(item)` makes a child,
// and `update(child, item)` fills it. Items of the same key are told apart by their order.
export function fill(parent, items, keyOf, make, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const times = new Map();
  let next = parent.firstElementChild;
  for (const item of items) {
    const name = keyOf(item);
    times.set(name, (times.get(name) ?? 0) + 1);
    const key = `${times.get(name)} ${name}`;
    let child = old.get(key);
    old.delete(key);
    if (!child) {
      child = make(item);
      child.dataset.key = key;
    }
    if (child === next) next = next.nextElementSibling;
    else parent.insertBefore(child, next);
    update(child, item);
  }
  for (const child of old.values()) child.remove();
}

// Rows of a table: `cells(item)` are texts, or numbers as [text], or elements that are made once.
export function fillRows(body, items, keyOf, cells) {
  fill(body, items, keyOf, () => element("tr"), (row, item) => {
    cells(item).forEach((cell, index) => {
      const isNew = index >= row.children.length;
      const td = isNew ? row.appendChild(element("td")) : row.children[index];
      if (Array.isArray(cell)) {
        setClass(td, `number ${cell[1] ?? ""}`.trim());
        setText(td, cell[0]);
      } else if (typeof cell === "function") {
        if (isNew) td.append(cell());
      } else setText(td, cell);
    });
  });
}
