// Events, and the parts of the page around the picture. Names go in as text, never as markup.

const at = (id) => document.getElementById(id);

function element(tag, text, name) {
  const e = document.createElement(tag);
  if (text !== undefined) e.textContent = text;
  if (name) e.className = name;
  return e;
}

function fillStory(box, b, long) {
  const list = element("dl");
  for (const [label, value] of story(b, long)) list.append(element("dt", label), element("dd", value));
  box.replaceChildren(element("b", b.name + (b.kind === "scratch" ? " (scratch)" : "")), list);
  box.classList.add("story");
}

function select(b) {
  selected = b;
  at("details").hidden = !b;
  if (b) {
    fillStory(at("details"), b, true);
    const close = element("button", "×", "close");
    close.setAttribute("aria-label", "Close");
    close.onclick = () => select(null);
    at("details").append(close);
  }
  redraw();
}

function hover(b, x, y) {
  const tip = at("tip");
  if (b !== hovered) { hovered = b; redraw(); if (b) fillStory(tip, b, false); }
  tip.hidden = !b;
  if (!b) return;
  const frame = canvas.getBoundingClientRect();
  const left = x + 16 + tip.offsetWidth > frame.width ? x - tip.offsetWidth - 12 : x + 16;
  const top = y + 16 + tip.offsetHeight > frame.height ? y - tip.offsetHeight - 12 : y + 16;
  tip.style.left = `${Math.max(0, left)}px`;
  tip.style.top = `${Math.max(0, top)}px`;
}

function setPersistent(on) {
  withPersistent = on;
  hover(null);
  fillLegend();
  at("persistent").checked = on;
  showAll();
  redraw();
}

function fillHeader() {
  const title = `${report.graph}: ${report.mode}, ${steps} steps, ${buffers.length} buffers`;
  at("title").textContent = title;
  const arena = totals.persistent + totals.transient + totals.scratch_per_worker * report.threads;
  const c = report.capacity;
  const rows = [
    ["arena", `${bytes(arena)}`],
    ["persistent", bytes(totals.persistent)],
    ["transient", bytes(totals.transient)],
    ["bound (max load)", bytes(totals.max_load)],
    ["placement", totals.status],
    ["scratch", `${report.threads} × ${bytes(totals.scratch_per_worker)}`],
    ["slots × rows", `${c.slots} × ${c.context}, ${c.step_rows} a call`],
    ["arithmetic", flops(report.flops)],
  ];
  if (report.recomputed_flops > 0) rows.push(["recomputed", flops(report.recomputed_flops)]);
  if (report.budget !== null) rows.push(["budget", `${bytes(report.budget)}, ${totals.transient <= budget ? "met" : "exceeded"}`]);
  for (const [name, value] of rows) {
    const box = element("div");
    box.append(element("dt", name), element("dd", value, value.endsWith("exceeded") ? "over" : ""));
    at("totals").append(box);
  }
}

function fillLegend() {
  at("legend").replaceChildren();
  for (const kind of kinds.filter((k) => buffers.some((b) => b.kind === k && (withPersistent || b.region === "transient")))) {
    const button = element("button");
    const patch = element("i");
    patch.style.background = `var(--${kind})`;
    button.append(patch, kindNames[kind] ?? kind);
    button.setAttribute("aria-pressed", String(!hidden.has(kind)));
    button.onclick = () => {
      if (!hidden.delete(kind)) hidden.add(kind);
      button.setAttribute("aria-pressed", String(!hidden.has(kind)));
      redraw();
    };
    at("legend").append(button);
  }
}

function fillWaterfall() {
  const most = Math.max(...report.waterfall.map((s) => s.bytes), 1);
  const part = (n) => `${(100 * n) / most}%`;
  report.waterfall.forEach((s, i) => {
    const before = i ? report.waterfall[i - 1].bytes : s.bytes;
    const row = element("div", undefined, "stage"), track = element("div", undefined, "track");
    const now = element("i", undefined, "now"), change = element("i", undefined, s.bytes <= before ? "saved" : "added");
    now.style.width = part(Math.min(s.bytes, before));
    change.style.left = part(Math.min(s.bytes, before));
    change.style.width = part(Math.abs(s.bytes - before));
    track.append(now, change);
    const sign = s.saved > 0 ? "−" : "+";
    row.append(element("span", s.name), track, element("span", bytes(s.bytes)), element("span", s.saved ? sign + bytes(Math.abs(s.saved)) : ""));
    at("waterfall").append(row);
  });
}

function fillPeak() {
  const peak = report.peak, byId = new Map(buffers.map((b) => [b.id, b]));
  at("peak-title").textContent = `Peak: ${bytes(peak.bytes)} in ${peak.buffers.length} buffers at step ${peak.step}${peak.node ? ` (${peak.node})` : ""}`;
  const head = element("thead"), titles = element("tr"), body = element("tbody");
  for (const [name, number] of [["buffer", 0], ["size", 1], ["peak without it", 1], ["kind", 0], ["alive for", 0]]) titles.append(element("th", name, number ? "number" : ""));
  head.append(titles);
  const shown = 30;
  for (const x of peak.buffers.slice(0, shown)) {
    const b = byId.get(x.id), row = element("tr");
    row.append(element("td", b.name), element("td", bytes(x.bytes), "number"), element("td", bytes(x.without), "number"), element("td", kindNames[b.kind] ?? b.kind), element("td", lastUse(b)));
    row.onclick = () => { select(b); reveal(b); canvas.scrollIntoView({ block: "nearest" }); };
    body.append(row);
  }
  at("peak").append(head, body);
  const more = peak.buffers.slice(shown), rest = more.reduce((sum, x) => sum + x.bytes, 0);
  at("peak-more").textContent = more.length ? `and ${more.length} more, ${bytes(rest)} together` : "";
}

let matches = [], current = -1;
at("search").addEventListener("input", () => {
  matches = matching(at("search").value);
  current = -1;
  found.clear();
  matches.forEach((b) => found.add(b));
  at("matches").textContent = at("search").value.trim() ? `${matches.length} found${matches.length ? ", Enter shows the next" : ""}` : "";
  redraw();
});
at("search").addEventListener("keydown", (e) => {
  if (e.key === "Escape") { at("search").value = ""; at("search").dispatchEvent(new Event("input")); showAll(); redraw(); }
  if (e.key !== "Enter" || !matches.length) return;
  current = (current + (e.shiftKey ? matches.length - 1 : 1)) % matches.length;
  at("matches").textContent = `${current + 1} of ${matches.length}`;
  hover(null);
  select(matches[current]);
  reveal(matches[current]);
});

const middle = () => { const p = plot(); return [(p.left + p.right) / 2, (p.top + p.bottom) / 2]; };
const toPeak = () => {
  const span = Math.min(steps, 40);
  view.x0 = Math.min(Math.max(report.peak.step - span / 2, 0), steps - span);
  view.x1 = view.x0 + span;
  redraw();
};
at("zoom-in").onclick = () => zoom(...middle(), 0.6, 0.6);
at("zoom-out").onclick = () => zoom(...middle(), 1.7, 1.7);
at("reset").onclick = () => { showAll(); redraw(); };
at("to-peak").onclick = toPeak;
at("persistent").onchange = (e) => setPersistent(e.target.checked);

// Where an event is on the canvas.
const place = (e) => { const box = canvas.getBoundingClientRect(); return [e.clientX - box.left, e.clientY - box.top]; };
const pointers = new Map();
let dragged = 0;

canvas.addEventListener("wheel", (e) => {
  e.preventDefault();
  const factor = Math.exp(Math.max(-1, Math.min(1, (e.deltaY || e.deltaX) / 300)));
  const [x, y] = place(e);
  zoom(x, y, e.altKey ? 1 : factor, e.shiftKey ? 1 : factor);
  hover(bufferAt(x, y), x, y);
}, { passive: false });
canvas.addEventListener("pointerdown", (e) => { pointers.set(e.pointerId, place(e)); dragged = 0; canvas.setPointerCapture(e.pointerId); });
canvas.addEventListener("pointermove", (e) => {
  const [x, y] = place(e), before = pointers.get(e.pointerId);
  if (!before) { hover(bufferAt(x, y), x, y); return; }
  const others = [...pointers].filter(([id]) => id !== e.pointerId);
  pointers.set(e.pointerId, [x, y]);
  dragged += Math.hypot(x - before[0], y - before[1]);
  if (others.length === 1) {
    const [ox, oy] = others[0][1];
    const ratio = Math.hypot(before[0] - ox, before[1] - oy) / Math.max(Math.hypot(x - ox, y - oy), 1);
    zoom((x + ox) / 2, (y + oy) / 2, ratio, ratio);
  } else if (dragged > 4) {
    hover(null);
    move(x - before[0], y - before[1]);
  }
});
const release = (e) => {
  if (!pointers.delete(e.pointerId) || e.type === "pointercancel") return;
  const [x, y] = place(e);
  if (dragged <= 4) select(bufferAt(x, y));
};
canvas.addEventListener("pointerup", release);
canvas.addEventListener("pointercancel", release);
canvas.addEventListener("pointerleave", () => hover(null));
canvas.addEventListener("dblclick", (e) => zoom(...place(e), 0.5, 0.5));
canvas.addEventListener("keydown", (e) => {
  const keys = {
    "+": () => zoom(...middle(), 0.6, 0.6), "=": () => zoom(...middle(), 0.6, 0.6), "-": () => zoom(...middle(), 1.7, 1.7),
    "0": () => { showAll(); redraw(); }, p: toPeak, Escape: () => select(null),
    ArrowLeft: () => move(60, 0), ArrowRight: () => move(-60, 0), ArrowUp: () => move(0, 60), ArrowDown: () => move(0, -60),
  };
  if (keys[e.key]) { e.preventDefault(); keys[e.key](); }
});
window.addEventListener("resize", () => { resize(); redraw(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColors(); redraw(); });

fillHeader();
fillLegend();
fillWaterfall();
fillPeak();
readColors();
resize();
showAll();
draw();
