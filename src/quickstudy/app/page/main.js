/* The page: tabs, what is taught, what is asked, what is taken along. */

import * as answers from "./answers.js";
import { curl, download } from "./api.js";
import { $, colour, element, plural, short, shown } from "./dom.js";
import { droppable, inputs, readAll } from "./inputs.js";
import { ask, guard, notice, say, settled, tell, withdraw, working } from "./notices.js";
import * as served from "./served.js";
import { starters } from "./starters.js";
import { keep, onKept, recall } from "./store.js";
import { Task, labelForm } from "./task.js";

const BETWEEN = 120;
const HINTS = {
  drawing: ["Draw a symbol, name it, and add it. One of each class is enough.",
    "Draw one that nobody has named: they answer at every stroke."],
  photo: ["Choose photos of a class, name it, and add them. One of each class is enough.",
    "Choose a photo that nobody has named, or hold something into the camera."],
  text: ["Type sentences of a class, name it, and add them. One of each class is enough.",
    "Type a sentence that nobody has named: they answer as you type."],
};
const isKind = kind => Object.hasOwn(HINTS, kind);
const LOADING = { drawing: "Loading the learners…",
  photo: "Loading the network for photos: some seconds, once…",
  text: "Loading the network for sentences: some seconds, once…" };
const SILENT = "Teach two classes, then ask.";
const loaded = new Set();

const tasks = {};
let task = null, teach = null, query = null, lastAsked = null;

/* Changes of the task, one at a time: a second click while one is being made does nothing. */
let changing = false;
const change = (words, action) => guard(async (...given) => {
  if (changing) return;
  mark(true);
  try {
    await working(words, progress => action(progress, ...given));
    settled();
  } finally { mark(false); render(); }
  await predict();
});
function mark(busy) {
  changing = busy;
  document.body.setAttribute("aria-busy", busy);
}

/* ---- tabs ---- */

function press(button) {
  for (const other of $("kinds").children) other.setAttribute("aria-pressed", other === button);
}
const open = guard(async (kind, button) => {
  if (changing) return;
  teach?.stop(); query?.stop(); served.close(); withdraw();
  press(button);
  $("bench").hidden = $("tools").hidden = false;
  $("served").hidden = true;
  task = tasks[kind] ??= new Task(kind);
  keep("kind", kind);
  teach = inputs[kind]({ changed: () => {}, picks: false });
  query = inputs[kind]({ changed: predict, picks: true });
  $("teach").replaceChildren(teach.node);
  $("ask").replaceChildren(query.node);
  [$("teach-hint").textContent, $("ask-hint").textContent] = HINTS[kind];
  lastAsked = null;
  answers.silence(SILENT);
  render();
  const opened = task;
  await working(LOADING[kind], () => opened.ready());
});
function openModel(model, button) {
  teach?.stop(); query?.stop(); served.close(); withdraw();
  press(button);
  $("bench").hidden = $("tools").hidden = true;
  $("served").hidden = false;
  served.open(model);
}
for (const button of $("kinds").children) button.onclick = () => open(button.dataset.kind, button);

/* ---- teaching ---- */

const add = change("Adding…", async progress => {
  const items = teach.items(), label = labelForm($("label").value);
  if (!items.length) throw new Error("There is nothing to add yet.");
  if (!label) { $("label").focus(); throw new Error("What is it called? Give the class a name."); }
  await addAll(items.map(item => ({ ...item, label })), progress, teach);
});
/* Of what is added, nothing stays in the input; of what could not be, everything does. */
async function addAll(examples, progress, input) {
  let before = 0;
  await task.add(examples, done => {
    input?.drop(done - before);
    before = done;
    if (done < examples.length) progress(`Added ${done} of ${examples.length}…`);
  });
  say(`Added ${plural(examples.length, "example")}.`);
}
const addFiles = guard(async (files, label) => {
  const images = await readAll(files, task.kind) || [];
  if (images.length) await change("Adding…", progress =>
    addAll(images.map(image => ({ image, label })), progress))();
});

/* Changes that can be undone: what is said of them, and a way back. */
const undoable = (words, action) => action(words).then(() => notice(words, undo));
const undo = change("Undoing…", async () => {
  const words = task.past.at(-1)?.words;
  await task.undo();
  withdraw();
  if (words) say(`Undone: ${words}`);
});
const remove = change("Removing…", (progress, gone, words) =>
  undoable(words, said => task.remove(gone, said)));
const rename = guard(async (old, given) => {
  const label = labelForm(given), [was, is] = [short(old, 40), short(label, 40)];
  const merged = label !== old && task.classes.includes(label);
  const meant = !merged || await ask(
    `There is a class “${is}” already. Shall “${was}” and it become one?`, "Make them one");
  if (!label || label === old || !meant) { render(); return; }
  await give(old, label, merged ? `“${was}” is now part of “${is}”.` : `“${was}” is now “${is}”.`);
});
const give = change("Renaming…", (progress, old, label, words) =>
  undoable(words, said => task.rename(old, label, said)));
const startOver = change("Starting over…", async progress => {
  teach.clear(); query.clear();
  answers.silence(SILENT);
  if (!task.examples.length) return;
  const words = `Took away all ${plural(task.examples.length, "example")}.`;
  await undoable(words, said => task.replace([], said));
});
const start = change("Getting examples…", async progress => {
  const { examples, ask: asked, credit } = await starters[task.kind]();
  if (credit) keep("credit", credit);
  await addAll(examples, progress);
  query.draw(asked.image || asked.text);
});

/* ---- what is taught ---- */

function render() {
  const key = document.activeElement?.dataset.key;
  const { classes, examples } = task;
  $("labels").replaceChildren(...classes.map(value => element("option", { value })));
  $("start").hidden = examples.length > 0;
  $("undo").disabled = !task.past.length;
  $("undo").title = task.past.at(-1)?.words || "";
  $("unkept").hidden = task.kept;
  $("credit").textContent = task.kind === "photo" && examples.length ? recall("credit") : "";
  $("classes").replaceChildren(...classes.map((label, i) =>
    classRow(label, examples.filter(example => example.label === label), i)));
  const again = key && document.querySelector(`[data-key="${CSS.escape(key)}"]`);
  if (key && key !== document.activeElement?.dataset.key) (again || $("label")).focus();
  if (!examples.length || !query.item()) answers.silence(SILENT);
}
function classRow(label, own, i) {
  const name = element("input", { className: "name", value: label, maxLength: 100, title: label,
    data: { key: `name ${label}` }, aria: { label: `Name of the class ${label}` } });
  name.onchange = () => rename(label, name.value);
  const more = element("button", { textContent: "+", title: "Teach more of these",
    data: { key: `more ${label}` }, aria: { label: `Teach more of ${label}` } });
  more.onclick = () => {
    $("label").value = label;
    $("teaching").scrollIntoView();
    $("label").focus();
  };
  const away = element("button", { textContent: "✕", title: "Take the class away",
    data: { key: `away ${label}` }, aria: { label: `Take away the class ${label}` } });
  away.onclick = () => remove(own, `Took away “${short(label, 40)}”, ${plural(own.length, "example")}.`);
  const row = element("div", { className: "class" },
    element("div", { className: "head" }, element("i", { className: "swatch " + colour(i) }), name,
      element("span", { className: "small", textContent: own.length }), more, away),
    element("div", { className: "thumbs" }, ...own.map((example, j) => thumb(example, label, j))));
  row.dataset.class = label;
  if (task.kind !== "text") droppable(row, files => addFiles(files, label));
  return row;
}
function thumb(example, label, j) {
  const button = element("button", { className: "thumb", title: "Take it away",
    data: { id: example.id || "", key: `thumb ${label} ${j}` },
    aria: { label: example.text ? `Take away “${short(example.text, 60)}”`
      : `Take away example ${j + 1} of ${label}` } }, shown(example));
  button.onclick = () => remove([example], `Took away an example of “${short(label, 40)}”.`);
  return button;
}

/* ---- asking ---- */

let busy = false, again = false;
const predict = guard(async () => {
  if (busy) { again = true; return; }
  const item = query.item(), asked = task;
  if (!item) { lastAsked = null; answers.silence(SILENT); }
  if (!item || !asked.examples.length) return;
  busy = true;
  try {
    const found = await working(loaded.has(asked.kind) ? "Asking…" : LOADING[asked.kind],
      () => asked.predict([item]));
    loaded.add(asked.kind);
    if (asked !== task || !query.item()) return;
    lastAsked = item;
    answers.show(found, item, asked.examples);
  } finally {
    setTimeout(() => { busy = false; if (again) { again = false; predict(); } }, BETWEEN);
  }
});

/* ---- taking along ---- */

for (const button of document.querySelectorAll("[data-form]")) {
  const form = button.dataset.form;
  button.onclick = change(`Making model.${form}: up to half a minute for ONNX…`, async () =>
    download(await (await task.fetch(`model?format=${form}`)).blob(), `model.${form}`));
}
$("curl").onclick = guard(async () => {
  if (!lastAsked) throw new Error("Ask something first: the command repeats your last question.");
  await task.ready();
  const command = curl(task.path("predict"), { items: [lastAsked] });
  try {
    await navigator.clipboard.writeText(command);
    notice("The command is in the clipboard.");
  } catch {
    download(new Blob([command + "\n"], { type: "text/plain" }), "ask.sh");
    notice("The browser gives no clipboard here: the command is in the file ask.sh.");
  }
});
$("save").onclick = () => download(new Blob([JSON.stringify({ kind: task.kind,
  examples: task.examples.map(({ label, image, text }) => ({ label, image, text })) })],
{ type: "application/json" }), "task.json");
$("open").onclick = () => $("file").click();
$("file").onchange = guard(async () => {
  const [file] = $("file").files;
  let kept = null;
  try { kept = JSON.parse(await file.text()); } catch { /* said below */ }
  $("file").value = "";
  const whole = example => typeof example?.label === "string" && labelForm(example.label)
    && (kept.kind === "text" ? example.text : String(example.image).startsWith("data:image/"));
  if (!isKind(kept?.kind) || !Array.isArray(kept.examples) || !kept.examples.every(whole)) {
    throw new Error(`${file.name} holds no task: expected a file that Save has written.`);
  }
  await open(kept.kind, document.querySelector(`[data-kind=${kept.kind}]`));
  await load(kept.examples.map(example => ({ ...example, label: labelForm(example.label) })));
});
const load = change("Opening…", async (progress, examples) => {
  const words = `Opened ${plural(examples.length, "example")}.`;
  await undoable(words, said => task.replace(examples, said));
});

$("naming").onsubmit = e => { e.preventDefault(); add(); };
$("label").onfocus = () => $("label").select();
$("reset").onclick = startOver;
$("starter").onclick = start;
$("undo").onclick = undo;
onKept(key => {
  for (const one of Object.values(tasks)) if (key === "task." + one.kind) { one.leave(); one.recall(); }
  lastAsked = null;
  answers.silence(SILENT);
  render();
});

window.addEventListener("pagehide", () => Object.values(tasks).forEach(one => one.leave()));

const last = isKind(recall("kind")) ? recall("kind") : "drawing";
await open(last, document.querySelector(`[data-kind=${last}]`));
try {
  for (const model of await served.models()) {
    const button = element("button", { textContent: `Your model: ${short(model.name)}`,
      title: model.name, data: { model: model.name }, aria: { pressed: "false" } });
    button.onclick = () => openModel(model, button);
    $("kinds").append(button);
  }
} catch (error) { tell(error); }
