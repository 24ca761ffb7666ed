// Elements from values. All text is set as text: what comes from topics, messages and servers never becomes HTML.

export const byId = (id) => document.getElementById(id);

// An element with attributes; children are elements or texts.
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Sets a text only where it differs, so that a screen reader says nothing twice and a selection is kept.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setClass(node, name) {
  if (node.className !== name) node.className = name;
}

// Makes the children of a node those of a list. One that stays is kept, with its focus. `make(item)` makes a child,
// and `update(child, item)` fills it.
export function fill(parent, items, keyOf, make, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let next = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
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
