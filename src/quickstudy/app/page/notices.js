/* What is said to the user: work in progress, what went wrong, what can be undone, a question. */

import { $ } from "./dom.js";

const VISIBLE = 250, ERROR = 8000, NOTICE = 12_000, QUIET = 700;
const timers = {};
const later = (name, action, delay) => {
  clearTimeout(timers[name]);
  timers[name] = setTimeout(action, delay);
};

function open(id, words, delay) {
  $(id).firstElementChild.textContent = words;
  $(id).hidden = false;
  later(id, () => close(id), delay);
}
function close(id) { $(id).hidden = true; }
for (const id of ["error", "notice"]) $(id).querySelector(".close").onclick = () => close(id);

export const tell = error => open("error", error.message || String(error), ERROR);
export const settled = () => close("error");
export const guard = action => async (...words) => {
  try { return await action(...words); } catch (error) { tell(error); }
};

/* What was done, and a way back. */
export function notice(words, undo) {
  $("notice").querySelector(".act").hidden = !undo;
  $("notice").querySelector(".act").onclick = () => { close("notice"); undo(); };
  open("notice", words, NOTICE);
  say(words);
}
export const withdraw = () => close("notice");

let works = 0;
/* A sign of work, if it takes long enough to be noticed; `words` may be changed on the way. */
export async function working(words, action) {
  const progress = text => { $("work").lastElementChild.textContent = text; };
  works++;
  progress(words);
  const timer = setTimeout(() => { $("work").hidden = false; }, VISIBLE);
  try { return await action(progress); } finally {
    clearTimeout(timer);
    if (!--works) $("work").hidden = true;
  }
}

/* One short sentence for those who listen, once nothing has changed for a moment. */
export function say(words) {
  later("say", () => { if ($("said").textContent !== words) $("said").textContent = words; }, QUIET);
}

export function ask(question, yes) {
  $("question-text").textContent = question;
  $("yes").textContent = yes;
  $("question").returnValue = "no";
  $("question").showModal();
  return new Promise(answer => {
    $("question").onclose = () => answer($("question").returnValue === "yes");
  });
}
