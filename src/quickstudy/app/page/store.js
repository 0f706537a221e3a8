/* What the browser keeps, where it may. */

const NAME = "quickstudy.";

export function recall(key) {
  try { return JSON.parse(localStorage.getItem(NAME + key)); } catch { return null; }
}

/* Whether there was room for it. */
export function keep(key, value) {
  try { localStorage.setItem(NAME + key, JSON.stringify(value)); return true; } catch { return false; }
}

/* `changed` hears of the keys under which another page keeps something. */
export function onKept(changed) {
  window.addEventListener("storage", e => {
    if (e.key?.startsWith(NAME)) changed(e.key.slice(NAME.length));
  });
}
