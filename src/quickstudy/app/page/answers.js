/* What each learner says, a row each; and how the chosen one got there. */

import { attention, growth, space, steps } from "./drawings.js";
import { $, bars, colour, element, percent, plural, short, shown } from "./dom.js";
import { about } from "./learners.js";
import { say } from "./notices.js";

let found = null, item = null, known = [], chosen = null, picked = null;
let rows = new Map(), head = null, map = null;

const best = answer => Math.max(...answer.probabilities);
const wording = answer => answer.unknown ? "unknown" : answer.label;

/* Nothing has been asked yet. */
export function silence(words) {
  found = null; rows = new Map(); head = map = null;
  $("answers").replaceChildren();
  $("why").replaceChildren(element("p", { textContent: words }));
}

/* The answers to `asked`, of a task with these examples. */
export function show(answers, asked, examples) {
  [found, item] = [answers, asked];
  const byId = new Map(examples.map(example => [example.id, example]));
  known = found.examples.map(id => byId.get(id));
  if (known.includes(undefined)) return;  // the task has changed since
  const names = Object.keys(found.learners);
  if (names.join("\n") !== [...rows.keys()].join("\n")) {
    rows = new Map(names.map(name => [name, row(name)]));
    $("answers").replaceChildren(...[...rows.values()].map(own => own.node));
  }
  chosen = rows.has(picked) ? picked : names.find(name => answers.learners[name].map) || names[0];
  for (const name of names) rows.get(name).update(found.learners[name]);
  explain();
  sayIt();
}

function row(name) {
  const answer = element("b", { className: "answer" }), sure = element("span");
  const fill = element("i");
  const node = element("button", { className: "says", data: { learner: name } },
    element("span", { className: "who", textContent: name }), answer, sure,
    element("span", { className: "bar" }, fill));
  node.onclick = () => { picked = chosen = name; explain(); press(); };
  const update = own => {
    const first = own.answers?.[0];
    answer.textContent = own.waiting || wording(first);
    answer.title = answer.textContent;
    node.classList.toggle("waiting", !!own.waiting);
    node.classList.toggle("unknown", !!first?.unknown);
    sure.textContent = first && !first.unknown ? percent(best(first)) : "";
    fill.className = first ? colour(found.classes.indexOf(first.label)) : "";
    fill.style.width = first && !first.unknown ? 100 * best(first) + "%" : "0";
    press();
  };
  return { node, update };
}
function press() {
  for (const [name, own] of rows) own.node.setAttribute("aria-pressed", name === chosen);
}

function sayIt() {
  const all = Object.values(found.learners).filter(own => own.answers);
  if (!all.length) return say("Teach a second class first.");
  const own = found.learners[chosen].answers ? found.learners[chosen] : all[0];
  const first = own.answers[0];
  const same = all.filter(other => wording(other.answers[0]) === wording(first)).length;
  return say(`${chosen} says ${short(wording(first), 40)}; so do ${same - 1} of ${all.length - 1}.`);
}

function explain() {
  if (!found) return;
  const own = found.learners[chosen];
  if (head?.dataset.learner !== chosen || !head.isConnected) {
    head = title(chosen);
    map = null;
    $("why").replaceChildren(head, element("div"));
  }
  for (const seen of document.querySelectorAll(".thumb.seen")) seen.classList.remove("seen");
  const body = $("why").lastElementChild;
  if (own.waiting) {
    body.replaceChildren(element("p", { textContent: `It ${own.waiting}.` }));
    return;
  }
  const answer = own.answers[0];
  const shares = bars(found.classes, answer.probabilities);
  shares.classList.toggle("doubted", !!answer.unknown);
  body.replaceChildren(shares, element("p", { className: "sure", textContent: certainty(own, answer) }),
    ...reasons(own, answer));
  const seen = document.querySelector(`.thumb[data-id="${CSS.escape(answer.looked_at || "")}"]`);
  seen?.classList.add("seen");
}

function title(name) {
  const [sentence, paper, address] = about(name);
  const line = element("p", {}, sentence + " ");
  if (address) {
    line.append(element("a", { href: address, target: "_blank", rel: "noreferrer",
      textContent: paper }));
  }
  return element("div", { data: { learner: name } }, element("h3", { textContent: name }), line);
}

/* How sure it is that this is of any of the classes: no more than it knows. */
function certainty(own, answer) {
  if (own.rejects) {
    const { held_out: n, false_reject: rate } = own.rejects;
    return (answer.unknown ? `Unknown: most like ${answer.label}, but less than your examples are like `
      + "their own classes." : "It is as much like its class as your own examples are.")
      + ` (Judged by ${n} of them, held out in turn: of new ones, ${percent(rate)} at most would be `
      + "called unknown, on average.)";
  }
  const more = own.rejects === null
    ? "With more examples, nine in classes of two at least, it can say “unknown”."
    : "It always names a class, even for what is of none.";
  return own.map ? `${nearness(own.map, answer)} ${more}` : more;
}

/* How far the question is, in words: measured by the examples, or else by the next class. */
function nearness({ typical, apart }, { distances }) {
  const distance = Math.min(...distances), nearest = distances.indexOf(distance);
  const mean = `the mean of ${short(found.classes[nearest])}`;
  const far = distance / (typical ?? apart[nearest]);
  const times = `${far.toFixed(1)} times as far from ${mean} as `;
  if (typical !== null) {
    return `It is ${times}your examples are from theirs${far > 1.5 ? ": perhaps of no class." : "."}`;
  }
  return `It is ${times}the next mean is${far > .8 ? ": perhaps of no class." : "."}`;
}

function reasons(own, answer) {
  const parts = [];
  if (own.map) parts.push(...place(own, answer));
  if (answer.attention) {
    parts.push(attention(answer.attention, found.classes, known, item),
      note("Attention to each example: the shares of a class add up to its probability."));
  }
  if (own.curve) parts.push(steps(own.curve), note(curveWords(own.curve)));
  if (answer.growth) {
    parts.push(growth(answer.growth, found.classes, known), legend(),
      note("Its answer to this question after each example that it reads, from the left."));
  }
  if (answer.looked_at && !answer.attention) {
    const example = known.find(one => one.id === answer.looked_at);
    parts.push(element("p", { className: "nearest" }, "Nearest example: ", shown(example),
      ` of ${short(example.label)}`));
  }
  return [...parts, note(`Learned from ${plural(known.length, "example")} in `
    + `${own.adapt_ms.toFixed(1)} ms.`)];
}
const note = textContent => element("p", { className: "small", textContent });

function place(own, answer) {
  const key = JSON.stringify([own.map, found.examples]);
  if (map?.key !== key) map = { key, ...space(own.map, found.classes, known) };
  const nearest = answer.distances.indexOf(Math.min(...answer.distances));
  const distance = answer.distances[nearest].toFixed(1);
  map.move(answer.at, nearest, `Map of ${plural(known.length, "example")} of `
    + `${plural(found.classes.length, "class", "classes")}; the question is ${distance} from the `
    + `mean of ${found.classes[nearest]}`);
  return [map.node, note(`Large dots are class means, the cross is your question: ${distance} from the `
    + `mean of ${short(found.classes[nearest])}. The map keeps ${percent(own.map.kept)} of how the `
    + "examples differ.")];
}

function curveWords({ loss, accuracy, taken }) {
  const last = loss.length - 1;
  return `On your examples, in ${last} steps: loss from ${loss[0].toFixed(2)} to `
    + `${loss[last].toFixed(2)}, accuracy from ${percent(accuracy[0])} to `
    + `${percent(accuracy[last])}. It answers after ${taken}.`;
}

function legend() {
  return element("p", { className: "legend" }, ...found.classes.map((name, i) =>
    element("span", {}, element("i", { className: colour(i) }), short(name))));
}
