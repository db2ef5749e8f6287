// The page at /docs: what /openapi.json says, for people.
import { inline } from "./card.js";
import { element } from "./parts.js";

const typeOf = (schema, all) => {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map((one) => typeOf(one, all)).filter((one) => one !== "null").join(" or ");
  if (schema.type === "array") return `list of ${typeOf(schema.items || {}, all)}`;
  if (schema.additionalProperties && schema.additionalProperties.type) return `object of ${schema.additionalProperties.type}`;
  return schema.format === "binary" ? "file" : schema.type || "any";
};

function fields(schema, all) {
  const required = new Set(schema.required || []);
  const rows = Object.entries(schema.properties || {}).map(([name, of]) => element("tr", {},
    element("td", {}, element("code", {}, name)), element("td", {}, typeOf(of, all) + (required.has(name) ? "" : ", optional")),
    element("td", {}, ...inline(of.description || ""))));
  return element("div", { class: "wide" }, element("table", {}, element("tbody", {}, ...rows)));
}

function call(path, verb, of, all) {
  const made = element("details", { class: "call" }, element("summary", {}, element("span", { class: "verb" }, verb.toUpperCase()), element("code", {}, path)),
    element("p", {}, ...inline(of.description || of.summary || "")));
  for (const [kind, { schema }] of Object.entries((of.requestBody || {}).content || {})) {
    made.append(element("h3", {}, `Form (${kind})`), fields(schema, all));
  }
  const answers = Object.entries(of.responses || {}).filter(([status]) => status !== "422" || of.requestBody);
  made.append(element("h3", {}, "Answers"), element("div", { class: "wide" }, element("table", {}, element("tbody", {}, ...answers.map(([status, answer]) => {
    const schema = ((answer.content || {})["application/json"] || {}).schema;
    return element("tr", {}, element("td", {}, status), element("td", {}, schema ? typeOf(schema, all) : ""), element("td", {}, answer.description || ""));
  })))));
  return made;
}

const spec = await (await fetch("/openapi.json")).json();
const all = (spec.components || {}).schemas || {};
document.getElementById("example").textContent = `curl -F pictures=@photo.jpg -F pictures=@other.png -F faces=true ${location.origin}/v1/predict`;
const calls = Object.entries(spec.paths).flatMap(([path, verbs]) => Object.entries(verbs).map(([verb, of]) => call(path, verb, of, all)));
calls.sort((one, other) => other.textContent.startsWith("POST") - one.textContent.startsWith("POST"));
calls[0].open = true;
const kinds = Object.entries(all).filter(([, schema]) => schema.properties && !/Validation|Body/.test(schema.title || "")).map(([name, schema]) =>
  element("details", { class: "call" }, element("summary", {}, element("code", {}, name)), element("p", {}, schema.description || ""), fields(schema, all)));
document.getElementById("calls").replaceChildren(...calls, element("h2", {}, "What is in an answer"), ...kinds);
