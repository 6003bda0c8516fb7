// Markdown as DOM nodes: headings, paragraphs, lists, tables, code. Text is only ever set as text, so nothing in
// a card is markup, and links and images stay words: the page asks no other host for anything.

const INLINE = /`([^`]+)`|\*\*([^*]+)\*\*|!?\[([^\]]*)\]\(([^)\s]*)\)/g;
const ROW = /^\s*\|/;
const LONG_CELL = 48; // characters; longer ones are wrapped
const ITEM = /^\s*(?:[-*]|\d+\.)\s+/;

export function render(markdown, into) {
  const lines = markdown.split("\n");
  into.replaceChildren();
  while (lines.length) {
    const block = next(lines);
    if (block) into.append(block);
  }
}

function next(lines) {
  const line = lines[0];
  if (!line.trim()) return void lines.shift();
  if (line.startsWith("```")) return code(lines);
  const heading = /^(#+)\s+(.*)$/.exec(line);
  if (heading) {
    lines.shift();
    return inline(document.createElement(`h${Math.min(6, heading[1].length + 3)}`), heading[2]);
  }
  if (ROW.test(line)) return table(take(lines, (each) => ROW.test(each)));
  if (ITEM.test(line)) return list(take(lines, (each) => each.trim() && (ITEM.test(each) || /^\s/.test(each))));
  const text = [lines.shift(), ...take(lines, (each) => each.trim() && !startsBlock(each))].join(" ");
  return inline(document.createElement("p"), text);
}

const startsBlock = (line) => /^(#+\s|```)/.test(line) || ROW.test(line) || ITEM.test(line);

function take(lines, belongs) {
  let count = 0;
  while (count < lines.length && belongs(lines[count])) count++;
  return lines.splice(0, count);
}

function code(lines) {
  lines.shift();
  const text = take(lines, (each) => !each.startsWith("```")).join("\n");
  lines.shift();
  const block = document.createElement("pre");
  block.textContent = text;
  block.tabIndex = 0;
  return block;
}

function list(lines) {
  const element = document.createElement(/^\s*\d/.test(lines[0]) ? "ol" : "ul");
  const items = [];
  for (const line of lines) {
    if (ITEM.test(line)) items.push(line.replace(ITEM, ""));
    else items.push(`${items.pop()} ${line.trim()}`);
  }
  for (const item of items) element.append(inline(document.createElement("li"), item));
  return element;
}

function table(lines) {
  const rows = lines.map((line) => line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/));
  const body = rows.slice(1).filter((row) => !row.every((cell) => /^\s*:?-+:?\s*$/.test(cell)));
  const element = document.createElement("table");
  const fill = (section, row, tag) => {
    const line = section.insertRow();
    row.forEach((cell, index) => {
      const place = document.createElement(index === 0 && tag === "td" ? "th" : tag);
      if (place.tagName === "TH") place.scope = tag === "th" ? "col" : "row";
      if (cell.length > LONG_CELL) place.className = "long";
      line.append(inline(place, cell.trim().replaceAll("\\|", "|")));
    });
  };
  if (rows[0].some((cell) => cell.trim())) fill(element.createTHead(), rows[0], "th");
  const section = element.createTBody();
  for (const row of body) fill(section, row, "td");
  const frame = document.createElement("div");
  frame.className = "scrolled";
  frame.tabIndex = 0;
  frame.append(element);
  return frame;
}

function inline(element, text) {
  let end = 0;
  for (const found of text.matchAll(INLINE)) {
    element.append(text.slice(end, found.index));
    end = found.index + found[0].length;
    const [whole, asCode, strong, label, target] = found;
    if (whole.startsWith("!")) continue;
    if (label !== undefined) element.append(target ? `${label} (${target})` : label);
    else {
      const part = document.createElement(asCode === undefined ? "strong" : "code");
      part.textContent = asCode ?? strong;
      element.append(part);
    }
  }
  element.append(text.slice(end));
  return element;
}
