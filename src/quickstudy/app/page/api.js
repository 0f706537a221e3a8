/* The server: its REST API, and the limits of a request. */

const MOST_EXAMPLES = 100, MOST_BYTES = 7 << 20, MOST_PARTS = 15_000;
const token = decodeURIComponent((location.hash.match(/token=([^&]+)/) || ["", ""])[1]);
const headers = {
  ...token && { Authorization: "Bearer " + token }, "Content-Type": "application/json",
};
const pause = seconds => new Promise(done => setTimeout(done, 1000 * seconds));

const sentence = text => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

async function trouble(answer) {
  const said = await answer.json().catch(() => ({}));
  const words = answer.status === 401
    ? "This server asks for its token: open the address that quickstudy serve has printed."
    : sentence(String(said.detail || answer.statusText || "The server could not do that"));
  return Object.assign(new Error(words), { status: answer.status });
}

export async function request(method, path, body, { tries = 5, keepalive = false } = {}) {
  let answer;
  try {
    answer = await fetch("/api/" + path,
      { method, headers, keepalive, body: body && JSON.stringify(body) });
  } catch {
    throw new Error("The server does not answer. Is quickstudy serve still running?");
  }
  if (answer.status === 429 && tries) {
    await pause(Number(answer.headers.get("Retry-After")) || 1);
    return request(method, path, body, { tries: tries - 1, keepalive });
  }
  if (!answer.ok) throw await trouble(answer);
  return answer;
}

export async function api(method, path, body) {
  const answer = await request(method, path, body);
  return answer.status === 204 ? null : answer.json();
}

/* Examples in as many requests as the server's limits ask for. */
export function portions(examples, most = MOST_EXAMPLES) {
  const all = [];
  let bytes = Infinity, parts = 0;
  for (const example of examples) {
    const json = JSON.stringify(example);
    const own = new TextEncoder().encode(json).length, commas = json.match(/[,[{]/g).length;
    if (bytes + own > MOST_BYTES || parts + commas > MOST_PARTS
        || all.at(-1).length >= most) {
      all.push([]);
      bytes = parts = 0;
    }
    all.at(-1).push(example);
    bytes += own; parts += commas;
  }
  return all;
}

const quoted = text => `'${text.replaceAll("'", "'\\''")}'`;

/* A request as a shell's command. */
export function curl(path, body) {
  const lines = Object.entries(headers).map(([name, value]) => `-H ${quoted(`${name}: ${value}`)}`);
  return [`curl -s ${quoted(`${location.origin}/api/${path}`)}`, ...lines,
    `-d ${quoted(JSON.stringify(body))}`].join(" \\\n  ");
}

export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
