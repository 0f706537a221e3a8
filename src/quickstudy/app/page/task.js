/* A task: its examples live here, in the page, and the server has a copy that it may forget. */

import { api, portions, request } from "./api.js";
import { keep, recall } from "./store.js";

const MOST_UNDONE = 50;
const bare = ({ label, image, text }) => image ? { label, image } : { label, text };

/* As the server keeps it: what Python takes for blanks goes from its ends. */
const BLANKS = "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]+";
const ENDS = new RegExp(`^${BLANKS}|${BLANKS}$`, "g");
export const labelForm = label => label.normalize("NFC").replace(ENDS, "");

export class Task {
  constructor(kind) {
    this.kind = kind;
    this.id = null;
    this.kept = true;
    this.past = [];
    this.turn = Promise.resolve();
    this.recall();
  }

  get classes() { return [...new Set(this.examples.map(example => example.label))]; }

  /* What the browser has kept; of a page elsewhere, too, which has just kept it. */
  recall() {
    this.examples = recall("task." + this.kind) || [];
    this.id = null;
    this.past = [];
  }
  #keep() { this.kept = keep("task." + this.kind, this.examples.map(bare)); }

  /* One after another, whatever fails. */
  #inTurn(action) {
    const mine = this.turn.then(action);
    this.turn = mine.catch(() => {});
    return mine;
  }

  /* Make the server's copy anew. */
  async #upload() {
    const old = this.id;
    const made = (await api("POST", "tasks", { kind: this.kind, examples: [] })).id;
    try {
      for (const portion of portions(this.examples)) await this.#send(made, portion);
    } catch (error) {
      api("DELETE", "tasks/" + made).catch(() => {});
      throw error;
    }
    this.id = made;
    if (old) api("DELETE", "tasks/" + old).catch(() => {});
  }
  async #send(task, portion) {
    const sent = { examples: portion.map(bare) };
    const { ids } = await api("POST", `tasks/${task}/examples`, sent);
    portion.forEach((example, i) => { example.id = ids[i]; });
  }

  /* Ask the server's copy; if that has been forgotten, it is made again. */
  async #lasting(action) {
    if (!this.id) await this.#upload();
    try { return await action(); } catch (error) {
      if (error.status !== 404) throw error;
      this.id = null;
      await this.#upload();
      return action();
    }
  }

  /* Other examples, or the same in another order, as a step that can be undone. */
  async #become(examples, words) {
    const before = this.examples;
    this.examples = examples;
    try { await this.#upload(); } catch (error) { this.examples = before; throw error; }
    this.#remember(before, words);
  }
  #remember(before, words) {
    if (words) {
      this.past = [...this.past, { before, after: this.examples, words }].slice(-MOST_UNDONE);
    }
    this.#keep();
  }

  ready() { return this.#inTurn(() => this.id || this.#upload()); }

  /* `progress` hears how many have been added: what the server refuses afterwards is not among them. */
  add(examples, progress = () => {}) {
    return this.#inTurn(async () => {
      let done = 0;
      for (const portion of portions(examples)) {
        await this.#lasting(() => this.#send(this.id, portion));
        this.examples = [...this.examples, ...portion];
        this.#keep();
        progress(done += portion.length);
      }
    });
  }

  remove(gone, words) {
    return this.#inTurn(async () => {
      const before = this.examples, rest = before.filter(example => !gone.includes(example));
      if (gone.length > 1) return this.#become(rest, words);
      await this.#lasting(() => api("DELETE", this.path("examples/" + gone[0].id)));
      this.examples = rest;
      return this.#remember(before, words);
    });
  }

  replace(examples, words) { return this.#inTurn(() => this.#become(examples, words)); }

  rename(old, label, words) {
    return this.#inTurn(async () => {
      await this.#lasting(() => api("POST", this.path("rename"), { old, new: label }));
      const before = this.examples;
      this.examples = before.map(e => e.label === old ? { ...e, label } : e);
      this.#remember(before, words);
    });
  }

  /* The last step back; what was added since stays. */
  undo() {
    return this.#inTurn(async () => {
      const step = this.past.at(-1);
      if (!step) return;
      const since = this.examples.filter(example => !step.after.includes(example));
      await this.#become([...step.before, ...since]);
      this.past.pop();
    });
  }

  predict(items) { return this.#ask(() => api("POST", this.path("predict"), { items })); }

  /* The answer of the server to a GET of what it makes of the task. */
  fetch(what) { return this.#ask(() => request("GET", this.path(what))); }
  #ask(action) { return this.#inTurn(() => this.#lasting(action)); }

  /* Nobody needs the server's copy any more. */
  leave() {
    if (this.id) request("DELETE", "tasks/" + this.id, null, { keepalive: true }).catch(() => {});
    this.id = null;
  }

  /* Of the server's copy. */
  path(what) { return `tasks/${this.id}/${what}`; }
}
