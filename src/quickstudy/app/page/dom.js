/* Elements, without a line of HTML: what users type is text, and never anything else. */

export const $ = id => document.getElementById(id);

export function element(tag, properties = {}, ...children) {
  const { data = {}, aria = {}, ...own } = properties;
  const made = Object.assign(document.createElement(tag), own);
  Object.assign(made.dataset, data);
  for (const [name, value] of Object.entries(aria)) made.setAttribute("aria-" + name, value);
  made.append(...children);
  return made;
}

export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export const percent = share => Math.round(100 * share) + "%";

export const short = (text, most = 24) => text.length > most ? text.slice(0, most - 1) + "…" : text;

export const plural = (n, one, many = one + "s") => `${n} ${n === 1 ? one : many}`;

/* The colour of a class, by its place: a class of page.css. */
export const colour = index => "c" + index % 8;

/* An example as a small picture, or as its text. */
export function shown(example) {
  if (example.image) return element("img", { src: example.image, alt: "" });
  const row = Object.entries(example.row || {}).map(([name, value]) => `${name}: ${value}`);
  return element("span", { textContent: example.text ?? short(row.join(", "), 120) });
}

export function bars(classes, probabilities, most = 6) {
  const sorted = probabilities.map((p, i) => [p, i]).sort((a, b) => b[0] - a[0]).slice(0, most);
  return element("div", { className: "bars" }, ...sorted.flatMap(([p, i]) => {
    const fill = element("i", { className: colour(i) });
    fill.style.width = 100 * p + "%";
    return [element("span", { className: "name", textContent: classes[i], title: classes[i] }),
      element("div", { className: "bar" }, fill), element("span", { textContent: percent(p) })];
  }));
}
