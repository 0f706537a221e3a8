/* Pictures of how learners came to their answers, as SVG. */

import { colour, percent, short, svg } from "./dom.js";

const THUMBS = 60;

function picture(width, height, label, ...children) {
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
    ...children);
}
const words = (x, y, text, more = {}) => svg("text", { x, y, ...more }, text);

function thumb(example, x, y, side, kind) {
  const frame = svg("rect", { x, y, width: side, height: side, rx: 4, class: "frame " + kind });
  if (!example?.image) return svg("g", {}, frame, svg("title", {}, example?.text || ""));
  return svg("g", {}, svg("image", { href: example.image, x, y, width: side, height: side }), frame);
}

/* The examples, class means and the query in a plane. It is drawn once for a task; `move` then puts
   the query, and stretches the plane if the query leaves it. */
export function space(map, classes, examples) {
  const W = 480, H = 320, EDGE = 42;
  const own = [...map.examples, ...map.means];
  const marks = svg("g"), query = svg("g", { class: "query" });
  const node = picture(W, H, "", marks, query);
  node.classList.add("space");
  const index = example => classes.indexOf(example.label);
  let bounds = null, place = null;

  function draw() {
    const [left, right, top, bottom] = bounds;
    const scale = Math.min((W - 2 * EDGE) / (right - left), (H - 2 * EDGE) / (bottom - top));
    place = ([x, y]) => [W / 2 + (x - (left + right) / 2) * scale,
      H / 2 + (y - (top + bottom) / 2) * scale];
    const highest = map.means.map(at => place(at)[1] - 4);
    marks.replaceChildren(...map.examples.map((at, i) => {
      const [x, y] = place(at), example = examples[i], own = index(example);
      if (example.image && examples.length <= THUMBS) {
        const [mx, my] = place(map.means[own]);
        if (Math.hypot(x - mx, y - my) < 45) highest[own] = Math.min(highest[own], y - 9);
        return thumb(example, x - 15, y - 15, 30, colour(own));
      }
      return svg("circle", { cx: x, cy: y, r: 6, class: "dot " + colour(own) },
        svg("title", {}, `${example.label}: ${example.text || ""}`));
    }), ...map.means.map((at, i) => {
      const [x, y] = place(at);
      return svg("g", { class: "mean" }, svg("circle", { cx: x, cy: y, r: 9, class: colour(i) }),
        words(x, highest[i] - 12, short(classes[i], 18), { "text-anchor": "middle" }));
    }));
  }
  function reach(points) {
    const xs = points.map(p => p[0]), ys = points.map(p => p[1]);
    return [Math.min(...xs), Math.max(...xs) + 1e-6, Math.min(...ys), Math.max(...ys) + 1e-6];
  }
  function move(at, nearest, label) {
    const wide = bounds ? reach([[bounds[0], bounds[2]], [bounds[1], bounds[3]], at])
      : reach([...own, at]);
    if (!bounds || wide.some((v, i) => Math.abs(v - bounds[i]) > 2e-6)) { bounds = wide; draw(); }
    const [x, y] = place(at), [mx, my] = place(map.means[nearest]);
    const line = (x1, y1, x2, y2, kind) => svg("line", { x1, y1, x2, y2, class: kind });
    query.replaceChildren(line(x, y, mx, my, "link"), ...["halo", "cross"].flatMap(kind =>
      [line(x - 9, y - 9, x + 9, y + 9, kind), line(x - 9, y + 9, x + 9, y - 9, kind)]));
    node.setAttribute("aria-label", label);
  }
  return { node, move };
}

/* Lines from the query to the examples it attends to, as thick as the attention. */
export function attention(weights, classes, examples, item) {
  const W = 480, SIDE = 36, MOST = 10;
  const top = weights.map((w, i) => [w, i]).sort((a, b) => b[0] - a[0]).slice(0, MOST)
    .sort((a, b) => a[1] - b[1]);
  const step = W / top.length, at = k => step * (k + .5);
  const query = item.image ? thumb(item, W / 2 - 28, 4, 56, "query")
    : words(W / 2, 34, short(item.text, 50), { "text-anchor": "middle" });
  return picture(W, 240, "attention: " + top.filter(([w]) => w >= .05)
    .map(([w, i]) => `${percent(w)} to an example of ${examples[i].label}`).join(", "),
  ...top.map(([w], k) => svg("line", { x1: W / 2, y1: 62, x2: at(k), y2: 178, class: "look "
    + colour(classes.indexOf(examples[top[k][1]].label)), "stroke-width": .75 + 14 * w })),
  query,
  ...top.flatMap(([w, i], k) => [
    thumb(examples[i], at(k) - SIDE / 2, 180, SIDE, colour(classes.indexOf(examples[i].label))),
    words(at(k), 234, percent(w), { "text-anchor": "middle" })]));
}

/* Loss and accuracy on the examples, after each inner step. */
export function steps({ loss, accuracy, taken }) {
  const W = 480, H = 210, [L, R, T, B] = [40, 434, 14, 172], last = loss.length - 1;
  const most = Math.max(...loss, .01);
  const x = i => L + (R - L) * i / last, y = share => B - (B - T) * share;
  const path = (values, kind) => svg("polyline", { class: kind,
    points: values.map((v, i) => `${x(i)},${y(v)}`).join(" ") });
  return picture(W, H, `Loss after each inner step: ${loss.join(", ")}; accuracy: `
    + accuracy.map(percent).join(", "),
  svg("line", { x1: L, x2: R, y1: B, y2: B, class: "axis" }),
  svg("line", { x1: x(taken), x2: x(taken), y1: T, y2: B, class: "taken" }),
  words(x(taken) + 5, B - 6, "answers from here", { class: "quiet" }),
  ...loss.map((_, i) => words(x(i), B + 17, i, { "text-anchor": "middle", class: "quiet" })),
  words((L + R) / 2, B + 34, "inner steps", { "text-anchor": "middle", class: "quiet" }),
  path(loss.map(v => v / most), "loss"), path(accuracy, "accuracy"),
  words(L - 5, y(loss[0] / most) + 4, loss[0].toFixed(2), { "text-anchor": "end", class: "loss" }),
  words(R + 5, y(loss[last] / most) + 4 - 12 * (accuracy[last] < .1), loss[last].toFixed(2),
    { class: "loss" }),
  words(L - 5, y(accuracy[0]) + 4 + 14 * (Math.abs(accuracy[0] - loss[0] / most) < .08),
    percent(accuracy[0]), { "text-anchor": "end", class: "accuracy" }),
  words(R + 5, y(accuracy[last]) + 4, percent(accuracy[last]), { class: "accuracy" }));
}

/* The answer to this query after each example that was read: a column of shares. */
export function growth({ examples: read, probabilities }, classes, examples) {
  const W = 480, T = 8, TALL = 130, step = Math.min(60, W / read.length);
  const wide = Math.max(6, step - 6), side = Math.min(32, wide);
  const left = (W - step * read.length) / 2;
  return picture(W, T + TALL + side + 12, "answers as examples are read: " + read.map((n, k) => {
    const best = probabilities[k].indexOf(Math.max(...probabilities[k]));
    return `after ${n}, ${classes[best]} ${percent(probabilities[k][best])}`;
  }).join("; "), ...read.flatMap((n, k) => {
    const x = left + step * k + (step - wide) / 2, example = examples[n - 1];
    let y = T;
    const parts = probabilities[k].map((p, i) => {
      const part = svg("rect", { x, y, width: wide, height: Math.max(0, p * TALL),
        class: colour(i) }, svg("title", {}, `${classes[i]} ${percent(p)}`));
      y += p * TALL;
      return part;
    });
    return [...parts, thumb(example, x + (wide - side) / 2, T + TALL + 8, side,
      colour(classes.indexOf(example.label)))];
  }));
}
