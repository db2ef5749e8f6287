// A model card, as elements: of Markdown, what cards of facefeat use. Links stay text.
import { element } from "./parts.js";

const plain = (text) => text.replace(/&#32;/g, " ").replace(/\\([^\w\s])/g, "$1");

export function inline(text) {
  const parts = text.split(/(\*\*.+?\*\*|(?<!\\)`[^`]+`)/);
  return parts.filter(Boolean).map((part) => {
    if (part.startsWith("**") && part.endsWith("**") && part.length > 4) return element("strong", {}, plain(part.slice(2, -2)));
    if (part.startsWith("`") && part.endsWith("`") && part.length > 2) return element("code", {}, part.slice(1, -1));
    return plain(part);
  });
}

const cells = (line) => line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim());

function table(lines) {
  const [header, , ...rows] = lines.map(cells);
  const row = (of, kind) => element("tr", {}, ...of.map((cell) => element(kind, {}, ...inline(cell))));
  return element("div", { class: "wide" }, element("table", {}, element("thead", {}, row(header, "th")),
    element("tbody", {}, ...rows.map((one) => row(one, "td")))));
}

function list(lines) {
  const items = [];
  for (const line of lines) {
    if (line.startsWith("- ")) items.push(line.slice(2));
    else items[items.length - 1] += ` ${line.trim()}`;
  }
  return element("ul", {}, ...items.map((item) => element("li", {}, ...inline(item))));
}

export function rendered(markdown) {
  const found = document.createDocumentFragment();
  const body = markdown.replace(/^---\n[^]*?\n---\n/, ""); // its metadata are for programs
  for (const block of body.split(/\n\s*\n/)) {
    let lines = block.split("\n").filter((line) => line.trim());
    while (lines.length && lines[0].startsWith("#")) {
      const [, marks, text] = lines[0].match(/^(#+)\s*(.*)/);
      if (marks.length > 1) found.append(element("h3", {}, ...inline(text)));
      lines = lines.slice(1);
    }
    if (!lines.length) continue;
    if (lines[0].startsWith("|")) found.append(table(lines));
    else if (lines[0].startsWith("- ")) found.append(list(lines));
    else if (lines.every((line) => line.startsWith("    "))) found.append(element("pre", {}, lines.map((line) => line.slice(4)).join("\n")));
    else found.append(element("p", {}, ...inline(lines.map((line) => line.trim()).join(" "))));
  }
  return found;
}
