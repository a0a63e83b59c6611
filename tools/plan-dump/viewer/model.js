// What the page knows: the report, and questions about it.

const report = JSON.parse(document.getElementById("report").textContent);
const kinds = ["input", "parameter", "state", "kept", "activation", "saved", "activation_gradient", "parameter_gradient", "recomputed", "scratch"];
const kindNames = { kept: "keys, values, kept rows", activation_gradient: "activation gradient", parameter_gradient: "parameter gradient" };
const sections = { forward: "forward", backward: "backward", update: "optimiser" };

const align = (n) => Math.ceil(n / 64) * 64;
const totals = report.totals;
const steps = report.steps;
const buffers = report.buffers;
for (const b of buffers) b.end = b.offset + align(b.bytes);

// The budget is for everything but the persistent region; what worker scratch leaves of it for the transient one.
const budget = report.budget === null ? null : report.budget - totals.scratch_per_worker * report.threads;

// With `near`, as many digits as tell values that far apart from one another.
function bytes(n, near) {
  if (Math.abs(n) < 1024) return `${Math.round(n)} B`;
  const units = ["KiB", "MiB", "GiB", "TiB", "PiB"];
  let value = n / 1024, unit = 0;
  while (Math.abs(value) >= 1023.95 && unit + 1 < units.length) { value /= 1024; unit += 1; }
  const step = near ? near / 1024 ** (unit + 1) : 1;
  const digits = [0, 1, 2, 3].find((d) => Math.abs(step * 10 ** d - Math.round(step * 10 ** d)) < 1e-6) ?? 3;
  return `${value.toFixed(near ? digits : Math.abs(value) < 10 ? 2 : 1)} ${units[unit]}`;
}

function flops(n) {
  for (const [prefix, scale] of [["P", 1e15], ["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e3]])
    if (n >= scale) return `${(n / scale).toFixed(2)} ${prefix}FLOP`;
  return `${n} FLOP`;
}

// The highest end of what is live at each step: below it, what no buffer covers is a hole.
const envelope = (() => {
  const top = new Float64Array(steps).fill(totals.persistent);
  // From low to high ends, so that later ones overwrite; each step is then written a few times only where buffers stack.
  const order = buffers.filter((b) => b.region === "transient").sort((a, b) => b.end - a.end);
  const next = new Int32Array(steps + 1).map((_, i) => i);
  const find = (i) => { while (next[i] !== i) { next[i] = next[next[i]]; i = next[i]; } return i; };
  for (const b of order)
    for (let s = find(b.lower); s < b.upper; s = find(s)) { top[s] = b.end; next[s] = s + 1; }
  return top;
})();

const byStep = [...buffers].sort((a, b) => a.lower - b.lower || a.offset - b.offset);

function lastUse(b) {
  const use = b.last_use;
  if (use.read) return `${use.read.node} (${use.read.op}), step ${use.read.step}`;
  if (use.result) return `result ${use.result}`;
  return use === "persistent" ? "kept from call to call" : "its producer only";
}

// Highest load if the buffer were not there.
function without(b) {
  if (b.region !== "transient") return null;
  let most = 0;
  for (let s = 0; s < steps; s++) {
    const load = report.load[s] - (b.lower <= s && s < b.upper ? b.end - b.offset : 0);
    if (load > most) most = load;
  }
  return most;
}

function matching(text) {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return [];
  const has = (name) => name.toLowerCase().includes(wanted);
  const all = byStep.filter((b) => has(b.id) || has(b.op) || b.tensors.some((t) => has(t.name)));
  // What comes and goes first: it is what the picture shows.
  return [...all.filter((b) => b.region === "transient"), ...all.filter((b) => b.region !== "transient")];
}

// Label and value of everything worth knowing about a buffer.
function story(b, long) {
  const chain = b.tensors.map((t) => (t.op ? `${t.name} (${t.op})` : t.name));
  const rows = [
    ["kind", kindNames[b.kind] ?? b.kind],
    ["op", b.op],
    ["shape", b.shape],
    ["size", `${bytes(b.bytes)} (${b.bytes})`],
    ["offset", `${b.offset}`],
    ["steps", `${b.lower} to ${b.upper - 1} of ${steps}`],
    ["producer", b.producer ?? "there before the first step"],
    ["last reader", lastUse(b)],
  ];
  if (chain.length > 1) rows.push(["in place", chain.slice(0, long ? 1e6 : 6).join(" → ") + (!long && chain.length > 6 ? " → …" : "")]);
  if (long) {
    const readers = b.tensors.flatMap((t) => t.readers);
    if (readers.length) rows.push(["read by", readers.slice(0, 60).join(", ") + (readers.length > 60 ? ", …" : "")]);
    const rest = without(b);
    if (rest !== null) rows.push(["peak without it", rest < report.peak.bytes ? `${bytes(rest)}, ${bytes(report.peak.bytes - rest)} less` : `${bytes(rest)}, the same`]);
  }
  return rows;
}
