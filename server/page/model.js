// What is served: facts, what was measured against its parent, and its card.

import { render } from "/page/markdown.js";
import { words } from "/page/words.js";

const $ = (id) => document.getElementById(id);
let shown = null;

export function show(card) {
  shown = card;
  $("facts").replaceChildren();
  for (const [name, value] of Object.entries(card.facts)) {
    if (value === null) continue;
    $("facts").append(...pair(words().facts[name], text(name, value), name === "digest" || name === "parent"));
  }
  render(card.fidelity ?? words().noFidelity, $("fidelity"));
  $("card-details").hidden = !card.card;
  render(card.card ?? "", $("card"));
}

export function relabel() {
  if (shown) show(shown);
}

export function pair(term, value, isCode = false) {
  const name = document.createElement("dt");
  name.textContent = term;
  const body = document.createElement("dd");
  const place = isCode ? body.appendChild(document.createElement("code")) : body;
  place.textContent = value;
  return [name, body];
}

function text(name, value) {
  if (name === "verified") return words().values[value ? "holds" : "unverified"];
  if (name === "weights") return bytes(value);
  if (name === "digest" || name === "parent") return value.slice(0, 12);
  if (name === "context" || name === "vocabulary") return `${value.toLocaleString()} ${words().values.tokens}`;
  return typeof value === "number" ? value.toLocaleString() : value;
}

function bytes(count) {
  const power = Math.min(3, Math.floor(Math.log2(count) / 10));
  return `${(count / 1024 ** power).toFixed(power ? 1 : 0)} ${["B", "KiB", "MiB", "GiB"][power]}`;
}
