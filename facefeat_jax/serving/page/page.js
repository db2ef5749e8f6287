// The page at /: pictures go to POST /v1/predict, and what comes back is drawn. Loads nothing from elsewhere.
import { element, percent, written } from "./parts.js";
import { rendered } from "./card.js";

const find = (id) => document.getElementById(id);
const EXAMPLES = 4, SHOWN = 3, WIDEST = 1600;
let about = null;

function token() {
  return sessionStorage.getItem("facefeat-token") || "";
}

async function ask(path, options = {}) {
  const headers = token() ? { Authorization: `Bearer ${token()}` } : {};
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("the server does not answer; is it still running?");
  }
  const answer = await response.json().catch(() => ({}));
  if (response.status === 401) {
    find("wrong").textContent = token() ? "That is not the token." : "";
    find("login").hidden = false;
    find("token").focus();
  }
  if (!response.ok) throw new Error(answer.error || `the server answered ${response.status}`);
  return answer;
}

// ---- the model

async function load() {
  about = await ask("/v1/model");
  find("login").hidden = true;
  const heads = Object.keys(about.classes).map(written).join(", ");
  find("model").textContent = `The model ${about.name}: ${heads}.`;
  document.title = `facefeat: ${about.name}`;
  find("drawn").hidden = !about.drawings_only;
  find("ways").hidden = !about.faces;
  find("faces").checked = about.faces && about.looks_at_faces && !about.drawings_only;
  const facts = {
    Model: about.name,
    Fingerprint: about.model.slice(0, 16),
    "Runs on": about.runtime === "onnx" ? "ONNX Runtime" : "JAX",
    "Trained on": about.training_data.join(", ") || "unknown",
    "Picture size": `${about.image_size} by ${about.image_size} pixels`,
  };
  for (const [task, names] of Object.entries(about.classes)) facts[`Words for ${written(task)}`] = names.map(written).join(", ");
  find("facts").replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
  find("text").replaceChildren(about.card ? rendered(about.card) : element("p", { class: "note" }, "No model card came with this file. The run that it was exported from has one."));
}

// ---- a picture and its answers

async function show(file, way) {
  const people = element("div", {}, element("p", { class: "waiting" }, "Looking at it ..."));
  const photo = element("div", { class: "photo" });
  const article = element("article", {}, element("figure", {}, photo, element("figcaption", {}, file.name)), people);
  find("results").prepend(article);
  const drawing = draw(file, photo);
  try {
    const form = new FormData();
    form.append("pictures", file);
    if (way === "faces") form.append("faces", "true");
    const { results } = await ask("/v1/predict", { method: "POST", body: form });
    people.replaceChildren(...results.map((result) => person(result, results, file)));
    const size = await drawing;
    const found = results.filter((result) => result.face);
    if (size) photo.append(...found.map((result) => frame(result, size, article)));
    article.dataset.done = "yes";
    article.scrollIntoView({ block: "nearest", behavior: "smooth" });
  } catch (error) {
    people.replaceChildren(element("p", { class: "error" }, `No answer: ${error.message}`));
    article.dataset.done = "error";
  }
}

async function draw(file, photo) {
  try {
    // As the model sees it: with one of the two policies, EXIF's turn is ignored.
    const imageOrientation = about && about.decode === "as_notebook" ? "none" : "from-image";
    const bitmap = await createImageBitmap(file, { imageOrientation });
    const scale = Math.min(1, WIDEST / Math.max(bitmap.width, bitmap.height));
    const canvas = element("canvas", { role: "img", "aria-label": file.name });
    canvas.width = Math.max(1, Math.round(bitmap.width * scale));
    canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    photo.classList.toggle("small", Math.max(bitmap.width, bitmap.height) < 352);
    canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    photo.prepend(canvas);
    return { width: bitmap.width, height: bitmap.height };
  } catch {
    photo.replaceChildren(element("p", { class: "note" }, "This browser can't show this file."));
    return null;
  }
}

function frame({ person: number, face }, { width, height }, article) {
  const button = element("button", { class: "face", type: "button", "aria-label": `Person ${number}` }, element("span", {}, String(number)));
  const left = Math.max(0, face.left), top = Math.max(0, face.top);
  button.style.left = `${(100 * left) / width}%`;
  button.style.top = `${(100 * top) / height}%`;
  button.style.width = `${(100 * (Math.min(width, face.right) - left)) / width}%`;
  button.style.height = `${(100 * (Math.min(height, face.bottom) - top)) / height}%`;
  button.classList.toggle("low", top < 0.08 * height);
  button.addEventListener("click", () => {
    for (const one of article.querySelectorAll(".chosen")) one.classList.remove("chosen");
    const answers = article.querySelector(`[data-person="${number}"]`);
    button.classList.add("chosen");
    answers.classList.add("chosen");
    answers.scrollIntoView({ block: "nearest", behavior: "smooth" });
  });
  return button;
}

function person(result, all, file) {
  const section = element("section", { class: "person", "data-person": String(result.person || "") });
  if (result.error) section.append(element("p", { class: "error" }, `This picture can't be used: ${result.error}`));
  if (result.person) section.append(element("h3", {}, all.length > 1 ? `Person ${result.person}` : "One person"));
  section.append(...Object.entries(result.heads || {}).map(([task, answer]) => head(task, answer)));
  if (result.note) section.append(element("p", { class: "note" }, `Note: ${result.note}.`));
  if (!result.error && !result.person && !Object.keys(result.heads || {}).length) {
    const again = element("button", { class: "again", type: "button" }, "Answer for the whole picture");
    again.addEventListener("click", () => show(file, "whole"));
    section.append(again);
  }
  return section;
}

function head(task, answer) {
  const word = written(answer.label);
  const said = answer.unsure
    ? element("p", { class: "answer" }, element("strong", {}, "unsure "), element("span", {}, `(${word}, ${percent(answer.probability)})`))
    : element("p", { class: "answer" }, element("strong", {}, word));
  const classes = Object.entries(answer.probabilities).sort((one, other) => other[1] - one[1]);
  const bars = classes.map(([name, share]) => bar(name, share, name === answer.label));
  const section = element("div", { class: answer.unsure ? "head unsure" : "head", "data-head": task }, element("h4", {}, written(task)), said);
  if (answer.unsure) section.append(element("p", { class: "why" }, why(task, answer)));
  section.append(...bars.slice(0, SHOWN));
  if (bars.length > SHOWN) {
    section.append(element("details", { class: "more" }, element("summary", {}, `${bars.length - SHOWN} more`), ...bars.slice(SHOWN)));
  }
  return section;
}

function why(task, answer) {
  const rule = (about && about.unsure[task]) || {};
  if (answer.unlike) return "The picture is unlike those that this answer was trained on.";
  if (rule.never_sure) return "No probability of this answer keeps to the wanted share of errors, so it is never sure.";
  return `Answers below ${percent(rule.threshold || 0)} are withheld, so that at most ${percent(rule.error_rate || 0)} of the others are wrong on pictures like those it was tested on.`;
}

function bar(name, share, isBest) {
  const fill = element("div", { class: "fill" });
  fill.style.width = `${100 * share}%`;
  return element("div", { class: isBest ? "bar best" : "bar" }, element("span", { class: "name" }, written(name)),
    element("div", { class: "track", "aria-hidden": "true" }, fill), element("span", { class: "share" }, percent(share)));
}

// ---- where pictures come from

function take(files) {
  const way = find("faces").checked ? "faces" : "whole";
  for (const file of files) show(file, way);
}

find("files").addEventListener("change", (event) => {
  take([...event.target.files]);
  event.target.value = "";
});
const drop = find("drop");
for (const name of ["dragenter", "dragover"]) drop.addEventListener(name, () => drop.classList.add("over"));
for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
for (const name of ["dragover", "drop"]) document.addEventListener(name, (event) => event.preventDefault());
document.addEventListener("drop", (event) => take([...event.dataTransfer.files]));
document.addEventListener("paste", (event) => take([...event.clipboardData.files]));
find("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("facefeat-token", find("token").value.trim());
  load().catch(() => {});
});

find("examples").append(...Array.from({ length: EXAMPLES }, (_, number) => {
  const picture = element("img", { src: `/examples/${number}.png`, alt: `Drawn person ${number + 1}`, width: "76", height: "76" });
  const button = element("button", { type: "button" }, picture);
  button.addEventListener("click", async () => {
    const content = await (await fetch(picture.src)).blob();
    show(new File([content], `drawn person ${number + 1}.png`, { type: "image/png" }), "whole");
  });
  return element("li", {}, button);
}));
load().catch((error) => { if (find("login").hidden) find("model").textContent = error.message; });
