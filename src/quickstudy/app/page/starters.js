/* Examples to start from, and one to ask about. */

import { api } from "./api.js";
import { centred, sketch } from "./pictures.js";

/* Strokes of three symbols; each is drawn several times, never quite the same. */
const turns = Array.from({ length: 33 }, (_, i) => 2 * Math.PI * i / 32);
const SYMBOLS = {
  circle: [turns.map(t => [.5 + .32 * Math.cos(t), .5 + .32 * Math.sin(t)])],
  triangle: [[[.5, .18], [.84, .8], [.16, .8], [.5, .18]]],
  zigzag: [[[.2, .25], [.8, .25], [.2, .75], [.8, .75]]],
};
const HANDS = [[0, 1, 1], [.14, .9, 1.05], [-.1, 1.06, .88]];

function by([turn, wide, tall], strokes) {
  const [cos, sin] = [Math.cos(turn), Math.sin(turn)];
  return strokes.map(stroke => stroke.map(([x, y], i) => {
    const [a, b] = [(x - .5) * wide, (y - .5) * tall], wobble = .012 * Math.sin(7 * turn + i / 5);
    return [.5 + a * cos - b * sin + wobble, .5 + a * sin + b * cos - wobble];
  }));
}

function drawing() {
  const examples = HANDS.flatMap(hand => Object.entries(SYMBOLS).map(([label, strokes]) =>
    ({ label, image: centred(sketch(by(hand, strokes))) })));
  const asked = sketch(by([.05, .8, .95], SYMBOLS.triangle));
  return { examples, ask: { image: asked.toDataURL("image/png") } };
}

const SENTENCES = {
  bank: ["My card was stolen yesterday.", "How do I open a savings account?",
    "The cash machine did not give me any money."],
  weather: ["Will it rain tomorrow?", "It is going to be sunny all week.",
    "A storm is coming in from the sea."],
};

function text() {
  const examples = Object.entries(SENTENCES).flatMap(([label, texts]) =>
    texts.map(text => ({ label, text })));
  return { examples, ask: { text: "Do I need an umbrella this evening?" } };
}

/* `examples`, one to `ask`, and a `credit` where someone has to be named. */
export const starters = { drawing, text, photo: () => api("GET", "starters/photo") };
