/* Models that this server was started with: tried with one item or with many. */

import { api, download, portions } from "./api.js";
import { $, bars, element, percent, plural, short, shown } from "./dom.js";
import { inputs } from "./inputs.js";
import { guard, say, settled, working } from "./notices.js";

const MOST = 64, MOST_LETTERS = 4000, BETWEEN = 150;
const WHAT = { drawing: "Draw a symbol, or choose pictures", photo: "Choose photos, one or many",
  text: "Type a sentence, or many: one a line", table: "Fill in a row, or choose a table (.csv)" };

/* What the server has; a server without such models has no address for them. */
export async function models() {
  try { return (await api("GET", "models")).models; } catch (error) {
    if (error.status === 404) return [];
    throw error;
  }
}

let model = null, input = null, busy = false, again = false, together = false;

export function open(chosen) {
  model = chosen;
  together = false;
  input = inputs[model.kind]({ changed: ask, picks: false, unchanged: true,
    centres: model.encoder === "drawing", columns: model.columns });
  $("served-input").replaceChildren(input.node);
  $("served-head").textContent = model.name;
  $("served-about").textContent = `${WHAT[model.kind]}. It knows `
    + `${plural(model.classes.length, "class", "classes")} from ${plural(model.examples, "example")}: `
    + `${short(model.classes.join(", "), 200)}.`
    + (model.unknown ? " What resembles none of them it calls unknown." : "");
  $("served-answers").replaceChildren();
}
export function close() { input?.stop(); input = model = null; }

const ask = guard(async () => {
  if (busy) { again = true; return; }
  const items = input.items(), asked = model;
  if (!items.length) { $("served-answers").replaceChildren(); return; }
  busy = true;
  try {
    const { classes, answers } = await working("Asking your model…", progress =>
      predict(asked, items, progress));
    settled();
    if (asked === model) show(classes, answers, items);
  } catch (error) {
    $("served-answers").replaceChildren();
    throw error;
  } finally {
    setTimeout(() => { busy = false; if (again && model) { again = false; ask(); } }, BETWEEN);
  }
});

async function predict({ name }, items, progress) {
  const all = { classes: [], answers: [] };
  const long = items.findIndex(item => item.text?.length > MOST_LETTERS);
  if (long >= 0) throw new Error(`Line ${long + 1} has more than ${MOST_LETTERS} letters.`);
  for (const portion of portions(items, MOST)) {
    const done = all.answers.length;
    if (done) progress(`Asked about ${done} of ${items.length}…`);
    const body = { items: portion, ...together && portion.length > 1 && { together } };
    const part = await api("POST", `models/${encodeURIComponent(name)}/predict`, body);
    all.classes = part.classes;
    all.answers.push(...part.answers);
  }
  return all;
}

const wording = answer => answer.unknown ? "unknown" : answer.label;

function show(classes, answers, items) {
  const [first] = answers;
  $("served-answers").replaceChildren(answers.length > 1 ? table(classes, answers, items)
    : element("div", {}, element("p", { className: "verdict" + (first.unknown ? " unknown" : ""),
      textContent: wording(first) }), bars(classes, first.probabilities, 10)));
  say(answers.length > 1 ? `${answers.length} answers.` : `It says ${short(wording(first), 40)}.`);
}

function table(classes, answers, items) {
  const row = (answer, i) => element("tr", { className: answer.unknown ? "unknown" : "" },
    element("td", {}, shown(items[i])),
    element("th", { scope: "row", textContent: wording(answer) }),
    element("td", { textContent: answer.unknown
      ? `most like ${short(classes[answer.probabilities.indexOf(Math.max(...answer.probabilities))])}`
      : percent(Math.max(...answer.probabilities)) }));
  const save = element("button", { textContent: "Save answers (.csv)",
    onclick: () => download(new Blob([csv(classes, answers, items)], { type: "text/csv" }),
      `${model.name}.csv`) });
  const joint = element("button", { className: "toggle", ariaPressed: String(together),
    textContent: "Let them help one another", title: "Each shows the others what its class looks "
      + "like: better with few examples. Then every answer depends on the others, up to "
      + `${MOST} at a time.`,
    onclick: () => { together = !together; ask(); } });
  return element("div", {}, element("div", { className: "row" }, ...model.together ? [joint] : [], save),
    element("div", { className: "scroll" }, element("table", {},
    element("thead", {}, element("tr", {}, ...["Item", "Answer", "How sure"].map(textContent =>
      element("th", { scope: "col", textContent })))),
    element("tbody", {}, ...answers.map(row)))));
}

/* The columns of each row, or its text or number, the answer, and the chance of each class. */
function csv(classes, answers, items) {
  const own = (item, i) => item.row ?? { item: item.text ?? i + 1 };
  const lines = [[...Object.keys(own(items[0], 0)), "answer", ...classes],
    ...answers.map((answer, i) => [...Object.values(own(items[i], i)), wording(answer),
      ...answer.probabilities.map(p => p.toFixed(4))])];
  const cell = value => {
    const text = String(value ?? ""), safe = /^[=+@\t]/.test(text) ? "'" + text : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  return lines.map(line => line.map(cell).join(",") + "\n").join("");
}
