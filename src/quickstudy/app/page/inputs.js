/* Inputs of examples: a pad to draw on, photos, sentences, rows of a table.
   Each has `items`, what is there, in order; `item`, the one to ask about; `clear`; `drop`, which
   takes away the first so many; `draw`, which puts something in; `stop`. `changed` is called at every
   change, also within a stroke; what `picks` asks about one of its items. Files are prepared as examples
   of this page are, unless they are to be `unchanged`; what is drawn is centred where the network is
   used to that. */

import { camera } from "./camera.js";
import { element, plural } from "./dom.js";
import { guard, tell, working } from "./notices.js";
import { centred, line, pad, read } from "./pictures.js";

/* Pictures that were chosen, dropped or captured, each to be picked or taken away. */
function tray(changed, picks, clear) {
  let images = [], picked = 0;
  const node = element("div", { className: "tray", hidden: true });
  const render = () => {
    node.hidden = !images.length;
    if (clear) clear.hidden = node.hidden;
    node.replaceChildren(...images.map((src, i) => {
      const button = element("button", { type: "button", className: "thumb" },
        element("img", { src, alt: "" }));
      button.setAttribute("aria-label", picks ? `Ask about picture ${i + 1}`
        : `Leave out picture ${i + 1}`);
      if (picks) button.setAttribute("aria-pressed", i === picked);
      button.onclick = () => {
        if (picks) picked = i; else images = images.filter((_, j) => j !== i);
        render(); changed();
        node.children[Math.min(i, images.length - 1)]?.focus();
      };
      return button;
    }));
  };
  const set = (now, which) => { images = now; picked = which; render(); changed(); };
  return {
    node,
    items: () => images.map(image => ({ image })),
    item: () => images[picked] ? { image: images[picked] } : null,
    add: more => set([...images, ...more], images.length),
    drop: n => set(images.slice(n), 0),
    unpick: () => { if (picked >= 0) { picked = -1; render(); } },
  };
}

/* A button for files, which may also be dropped on `target`. */
function files(target, words, take, accept = "image/*") {
  const file = element("input", { type: "file", accept, multiple: true, hidden: true });
  const button = element("button", { type: "button", textContent: words });
  button.onclick = () => file.click();
  file.onchange = async () => { const chosen = [...file.files]; file.value = ""; await take(chosen); };
  droppable(target, take);
  return [button, file];
}

const clearing = clear => element("button", { type: "button", className: "clear",
  textContent: "Clear", onclick: clear });

export function droppable(target, take) {
  target.ondragover = e => { e.preventDefault(); target.classList.add("over"); };
  target.ondragleave = () => target.classList.remove("over");
  target.ondrop = e => {
    e.preventDefault();
    e.stopPropagation();
    target.classList.remove("over");
    take([...e.dataTransfer.files]);
  };
}

export const readAll = guard(async (chosen, kind) => {
  const { images, bad } = await working("Reading pictures…", progress =>
    read(chosen, kind, n => progress(`Reading picture ${n} of ${chosen.length}…`)));
  if (bad.length) {
    tell(`${plural(bad.length, "file")} that this browser cannot read as a picture: `
      + bad.slice(0, 3).join(", ") + (bad.length > 3 ? ", …" : ""));
  }
  return images;
});

function drawing({ changed, picks, unchanged = false, centres = true }) {
  const [canvas, pen] = pad();
  canvas.className = "pad";
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "Pad to draw on; without a pointer, choose pictures");
  const box = element("div", { className: "input" });
  const chosen = tray(changed, picks);
  let last = null, empty = true;
  const wipe = () => { pen.fillStyle = "#fff"; pen.fillRect(0, 0, 280, 280); empty = true; };
  const at = e => {
    const place = canvas.getBoundingClientRect();
    return [(e.clientX - place.left) * 280 / place.width,
      (e.clientY - place.top) * 280 / place.height];
  };
  const stroke = e => {
    const now = at(e);
    line(pen, last, now);
    last = now; empty = false;
    chosen.unpick();
    changed();
  };
  canvas.onpointerdown = e => { canvas.setPointerCapture(e.pointerId); last = at(e); stroke(e); };
  canvas.onpointermove = e => { if (last) stroke(e); };
  canvas.onpointerup = canvas.onpointercancel = e => { if (last) { stroke(e); last = null; } };
  const inked = () => empty ? []
    : [{ image: centres ? centred(canvas) : canvas.toDataURL("image/png") }];
  box.append(canvas, element("div", { className: "row" },
    ...files(box, "Choose pictures", async list =>
      chosen.add(await readAll(list, unchanged ? "file" : "drawing") || [])),
    clearing(() => own.clear())),
  chosen.node);
  const own = {
    node: box,
    items: () => [...inked(), ...chosen.items()],
    item: () => chosen.item() || inked()[0] || null,
    clear: () => { wipe(); chosen.drop(Infinity); },
    drop: n => { const mine = inked().length; if (n && mine) wipe(); chosen.drop(n - mine); },
    draw: image => {
      const picture = new Image();
      picture.onload = () => { pen.drawImage(picture, 0, 0, 280, 280); empty = false; changed(); };
      picture.src = image;
    },
    stop: () => {},
  };
  return own;
}

function photo({ changed, picks, unchanged = false }) {
  const box = element("div", { className: "input drop" });
  const clear = clearing(() => chosen.drop(Infinity));
  clear.hidden = true;
  const chosen = tray(changed, picks, clear);
  const eye = camera({ taken: image => chosen.add([image]), changed, live: picks });
  box.append(element("p", { textContent: "Drop photos here, or" }),
    element("div", { className: "row" },
      ...files(box, "Choose photos", async list =>
        chosen.add(await readAll(list, unchanged ? "file" : "photo") || [])),
      eye.button, clear),
    eye.node, chosen.node);
  return {
    node: box,
    items: chosen.items,
    item: () => eye.item() || chosen.item(),
    clear: () => chosen.drop(Infinity),
    drop: chosen.drop,
    draw: image => chosen.add([image]),
    stop: eye.stop,
  };
}

function text({ changed, picks }) {
  const area = element("textarea", { maxLength: picks ? 4000 : 100_000,
    placeholder: picks ? "Type a sentence" : "Type a sentence, or several: one a line" });
  area.setAttribute("aria-label", picks ? "Sentence to ask about" : "Sentences to teach");
  area.oninput = changed;
  const lines = () => area.value.split("\n").map(line => line.trim()).filter(Boolean);
  const clear = () => { area.value = ""; changed(); };
  return {
    node: element("div", { className: "input" }, area,
      element("div", { className: "row" }, clearing(clear))),
    items: () => lines().map(text => ({ text })),
    item: () => area.value.trim() ? { text: area.value.trim() } : null,
    clear,
    drop: n => { area.value = lines().slice(n).join("\n"); },
    draw: words => { area.value = words; changed(); },
    stop: () => {},
  };
}

/* A table's text as rows: objects by the names in its first line. */
export function rowsOf(text) {
  const lines = [[""]];
  let quoted = false;
  const mark = /^[^\n"]*\t/.test(text) ? "\t" : /^[^\n",]*;/.test(text) ? ";" : ",";
  const letters = text.replace(/^\ufeff/, "").replace(/\r\n?/g, "\n");
  for (let i = 0; i < letters.length; i++) {
    const line = lines.at(-1), letter = letters[i];
    const twice = quoted && letter === '"' && letters[i + 1] === '"';
    if (letter === '"' && !twice) quoted = !quoted;
    else if (letter === mark && !quoted) line.push("");
    else if (letter === "\n" && !quoted) lines.push([""]);
    else line[line.length - 1] += letter;
    if (twice) i++;
  }
  const [head, ...rest] = lines.filter(line => line.some(field => field.trim()));
  return rest.map(line => Object.fromEntries(head.map((name, i) =>
    [name.trim().toLowerCase(), line[i] ?? ""])));
}

const MOST_ROWS = 2000;

function table({ changed, columns }) {
  const box = element("div", { className: "input drop" });
  const said = element("p", { className: "hint" });
  let rows = [];
  const fields = columns.map(({ name, kind, levels }) => {
    const field = kind === "category"
      ? element("select", {}, ...["", ...levels].map(value =>
        element("option", { value, textContent: value || "(missing)" })))
      : element("input", kind === "date" ? { type: "date" }
        : { type: "text", inputMode: "decimal", placeholder: "(missing)", maxLength: 100 });
    field.oninput = () => { rows = []; said.textContent = ""; changed(); };
    return [name, field];
  });
  const filled = () => fields.some(([, field]) => field.value.trim());
  const one = () => ({ row: Object.fromEntries(fields.map(([name, field]) => [name, field.value])) });
  const clear = () => {
    for (const [, field] of fields) field.value = "";
    rows = []; said.textContent = ""; changed();
  };
  const take = guard(async ([chosen]) => {
    const found = rowsOf(await chosen.text());
    const lacks = columns.find(({ name }) => found.length && !(name in found[0]));
    if (!found.length) throw new Error(`${chosen.name} has no rows below its header.`);
    if (lacks) throw new Error(`${chosen.name} has no column ${lacks.name}.`);
    if (found.length > MOST_ROWS) throw new Error(`${chosen.name} has ${found.length} rows; `
      + `this page asks about ${MOST_ROWS} at most: quickstudy predict takes any number.`);
    rows = found.map(row => ({ row: Object.fromEntries(columns.map(({ name }) => [name, row[name]])) }));
    said.textContent = `${plural(rows.length, "row")} of ${chosen.name}`;
    changed();
  });
  box.append(element("div", { className: "fields" }, ...fields.map(([name, field]) =>
    element("label", {}, element("span", { textContent: name }), field))),
  element("div", { className: "row" },
    ...files(box, "Choose a table", take, ".csv,.tsv,text/csv"), clearing(clear)), said);
  return {
    node: box,
    items: () => rows.length ? rows : filled() ? [one()] : [],
    item: () => filled() ? one() : null,
    clear,
    drop: () => {},
    draw: () => {},
    stop: () => {},
  };
}

export const inputs = { drawing, photo, text, table };
