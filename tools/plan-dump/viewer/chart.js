// The picture: load curve, bands, and buffers as rectangles in time × memory, drawn on one canvas.

const canvas = document.getElementById("canvas");
const pen = canvas.getContext("2d");
const hidden = new Set();
const found = new Set();
let selected = null;
let hovered = null;
let withPersistent = false;
let colors = {};
let size = { width: 0, height: 0 };
// The steps and bytes in sight.
const view = { x0: 0, x1: Math.max(steps, 1), y0: 0, y1: 1 };

const bottom = () => (withPersistent ? 0 : totals.persistent);
const top_ = () => {
  const arena = totals.persistent + totals.transient;
  const limit = budget !== null && budget > 0 && budget < 1.6 * totals.transient ? totals.persistent + budget : 0;
  return Math.max(arena, limit, bottom() + 64) + 0.03 * Math.max(arena - bottom(), 64);
};

function plot() {
  const narrow = size.width < 560;
  const left = narrow ? 66 : 72;
  const loadHeight = Math.min(110, size.height * 0.22);
  return { left, right: size.width - 8, loadTop: 8, loadBottom: 8 + loadHeight, bandTop: 14 + loadHeight, top: 34 + loadHeight, bottom: size.height - 22 };
}

function showAll() { Object.assign(view, { x0: 0, x1: Math.max(steps, 1), y0: bottom(), y1: top_() }); }

const xOf = (p, step) => p.left + ((step - view.x0) / (view.x1 - view.x0)) * (p.right - p.left);
const yOf = (p, byte) => p.bottom - ((byte - view.y0) / (view.y1 - view.y0)) * (p.bottom - p.top);

function readColors() {
  const style = getComputedStyle(document.documentElement);
  const names = ["ground", "panel", "ink", "faint", "line", "grid", "hole", "accent", "bound", "arena", "budget", "load", ...kinds];
  colors = Object.fromEntries(names.map((n) => [n, style.getPropertyValue(`--${n}`).trim()]));
}

function resize() {
  const box = canvas.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
  size = { width: box.width, height: box.height };
  canvas.width = Math.round(box.width * ratio);
  canvas.height = Math.round(box.height * ratio);
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
}

let pending = false;
function redraw() {
  if (pending) return;
  pending = true;
  requestAnimationFrame(() => { pending = false; draw(); });
}

function draw() {
  const p = plot();
  // Where all of the memory is in sight, a finger that moves up or down scrolls the page.
  canvas.style.touchAction = view.y0 <= bottom() && view.y1 >= top_() ? "pan-y" : "none";
  pen.clearRect(0, 0, size.width, size.height);
  pen.font = "11px system-ui, sans-serif";
  pen.textBaseline = "middle";
  drawAxes(p);
  drawLoad(p);
  drawBands(p);
  pen.save();
  pen.beginPath();
  pen.rect(p.left, p.top, p.right - p.left, p.bottom - p.top);
  pen.clip();
  drawHoles(p);
  drawBuffers(p);
  drawLimits(p, (n) => yOf(p, totals.persistent + n), budget);
  pen.restore();
}

// A round number of steps or bytes near `span / count`.
function tick(span, count, base) {
  const raw = Math.max(span / count, 1);
  const power = base ** Math.floor(Math.log(raw) / Math.log(base));
  const factors = base === 2 ? [1, 2] : [1, 2, 5, 10];
  return power * factors.find((f) => f * power >= raw);
}

function drawAxes(p) {
  pen.strokeStyle = colors.grid;
  pen.fillStyle = colors.faint;
  pen.lineWidth = 1;
  const dy = tick(view.y1 - view.y0, (p.bottom - p.top) / 48, 2);
  pen.textAlign = "right";
  // Labels count from the bottom of what is shown: the transient region, or the arena.
  const origin = bottom();
  for (let y = Math.ceil((view.y0 - origin) / dy) * dy; origin + y <= view.y1; y += dy) {
    const at = Math.round(yOf(p, origin + y)) + 0.5;
    line(p.left, at, p.right, at);
    if (at > p.top + 4) pen.fillText(bytes(y, dy), p.left - 6, at);
  }
  const dx = tick(view.x1 - view.x0, (p.right - p.left) / 70, 10);
  pen.textAlign = "center";
  for (let x = Math.ceil(view.x0 / dx) * dx; x <= view.x1; x += dx) {
    const at = Math.round(xOf(p, x)) + 0.5;
    line(at, p.bottom, at, p.bottom + 4);
    if (at > p.left + 8 && at < p.right - 8) pen.fillText(String(x), at, p.bottom + 13);
  }
  pen.textAlign = "left";
  pen.fillText("step", p.left - 34, p.bottom + 13);
}

function line(x0, y0, x1, y1) { pen.beginPath(); pen.moveTo(x0, y0); pen.lineTo(x1, y1); pen.stroke(); }

// Bound, arena and budget of the transient region; `y` says where a number of bytes lies. Labels come after all lines.
function drawLimits(p, y, limit) {
  const met = totals.max_load === totals.transient;
  const limits = [[y(totals.transient), met ? colors.bound : colors.arena, met ? "arena = bound" : "arena", [], met ? 4 : 42]];
  if (!met) limits.push([y(totals.max_load), colors.bound, "bound", [5, 3], 4]);
  if (limit !== null) limits.push([y(limit), colors.budget, "budget", [2, 2], 84]);
  const shown = limits.filter(([at]) => at >= p.loadTop - 1 && at <= p.bottom);
  pen.save();
  pen.lineWidth = 1.5;
  for (const [at, color, , dash] of shown) {
    pen.strokeStyle = color;
    pen.setLineDash(dash);
    line(p.left, at, p.right, at);
  }
  pen.font = "10px system-ui, sans-serif";
  pen.textAlign = "right";
  for (const [at, color, name, , indent] of shown) {
    const x = p.right - indent, width = pen.measureText(name).width;
    pen.fillStyle = colors.panel;
    pen.globalAlpha = 0.85;
    pen.fillRect(x - width - 2, at - 7, width + 4, 13);
    pen.globalAlpha = 1;
    pen.fillStyle = color;
    pen.fillText(name, x, at);
  }
  pen.restore();
}

function drawLoad(p) {
  const limit = budget !== null && budget > 0 && budget < 2 * totals.transient ? budget : 0;
  const most = Math.max(totals.transient, totals.max_load, limit, 1) * 1.08;
  const y = (n) => p.loadBottom - (n / most) * (p.loadBottom - p.loadTop);
  pen.save();
  pen.fillStyle = colors.faint;
  pen.textAlign = "right";
  pen.fillText("load", p.left - 6, p.loadTop + 6);
  pen.fillText("0", p.left - 6, p.loadBottom - 4);
  pen.fillText(bytes(report.peak.bytes), p.left - 6, Math.max(y(report.peak.bytes), p.loadTop + 20));
  pen.beginPath();
  pen.rect(p.left, 0, p.right - p.left, p.loadBottom + 1);
  pen.clip();
  // One column per pixel: the highest load of the steps that fall on it.
  pen.beginPath();
  pen.moveTo(p.left, p.loadBottom);
  const perPixel = (view.x1 - view.x0) / (p.right - p.left);
  for (let px = p.left; px < p.right; px++) {
    const first = Math.floor(view.x0 + (px - p.left) * perPixel);
    const last = Math.max(first + 1, Math.floor(view.x0 + (px + 1 - p.left) * perPixel));
    let load = 0;
    for (let s = Math.max(first, 0); s < Math.min(last, steps); s++) load = Math.max(load, report.load[s]);
    pen.lineTo(px, y(load));
    pen.lineTo(px + 1, y(load));
  }
  pen.lineTo(p.right, p.loadBottom);
  pen.closePath();
  pen.globalAlpha = 0.35;
  pen.fillStyle = colors.load;
  pen.fill();
  pen.globalAlpha = 1;
  pen.strokeStyle = colors.load;
  pen.stroke();
  drawLimits(p, y, limit || null);
  pen.restore();
  pen.strokeStyle = colors.line;
  line(p.left, p.loadBottom + 0.5, p.right, p.loadBottom + 0.5);
}

function drawBands(p) {
  const tone = { forward: colors.activation, backward: colors.activation_gradient, update: colors.parameter };
  pen.save();
  pen.beginPath();
  pen.rect(p.left, p.bandTop, p.right - p.left, 14);
  pen.clip();
  pen.textAlign = "center";
  for (const band of report.bands) {
    const x0 = Math.max(xOf(p, band.first), p.left), x1 = Math.min(xOf(p, band.end), p.right);
    if (x1 <= x0) continue;
    pen.globalAlpha = 0.28;
    pen.fillStyle = tone[band.section];
    pen.fillRect(x0, p.bandTop, Math.max(x1 - x0, 0.5), 14);
    pen.globalAlpha = 1;
    const name = sections[band.section];
    if (pen.measureText(name).width + 8 < x1 - x0) { pen.fillStyle = colors.ink; pen.fillText(name, (x0 + x1) / 2, p.bandTop + 7); }
  }
  pen.restore();
}

function hatch() {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 8;
  const t = tile.getContext("2d");
  t.strokeStyle = colors.hole;
  t.lineWidth = 1.2;
  t.beginPath();
  for (const d of [-8, 0, 8]) { t.moveTo(d, 8); t.lineTo(d + 8, 0); }
  t.stroke();
  return pen.createPattern(tile, "repeat");
}

function drawHoles(p) {
  const base = yOf(p, totals.persistent);
  const first = Math.max(0, Math.floor(view.x0)), last = Math.min(steps, Math.ceil(view.x1));
  pen.beginPath();
  pen.moveTo(xOf(p, first), base);
  for (let s = first; s < last; s++) {
    const y = yOf(p, envelope[s]);
    pen.lineTo(xOf(p, s), y);
    pen.lineTo(xOf(p, s + 1), y);
  }
  pen.lineTo(xOf(p, last), base);
  pen.closePath();
  pen.fillStyle = hatch();
  pen.fill();
}

// Light or dark letters, whichever reads better on the colour.
function letters(color) {
  const n = parseInt(color.slice(1), 16);
  const bright = 0.299 * (n >> 16) + 0.587 * ((n >> 8) & 255) + 0.114 * (n & 255);
  return bright > 140 ? "#14171a" : "#ffffff";
}

// As much of a dotted name as fits, whole words from its end; nothing where not even the last fits.
function label(name, room) {
  if (pen.measureText(name).width <= room) return name;
  for (let dot = name.indexOf("."); dot >= 0; dot = name.indexOf(".", dot + 1)) {
    const rest = name.slice(dot + 1);
    if (/[a-z]/i.test(rest) && pen.measureText("…" + rest).width <= room) return "…" + rest;
  }
  return "";
}

function drawBuffers(p) {
  const searching = found.size > 0;
  for (const b of byStep) {
    if (b.upper <= view.x0 || b.lower >= view.x1 || b.end <= view.y0 || b.offset >= view.y1) continue;
    if (b.region === "persistent" && !withPersistent) continue;
    const x0 = Math.max(xOf(p, b.lower), p.left - 2), x1 = Math.min(xOf(p, b.upper), p.right + 2);
    const y0 = Math.max(yOf(p, b.end), p.top - 2), y1 = Math.min(yOf(p, b.offset), p.bottom + 2);
    const w = Math.max(x1 - x0, 0.7), h = Math.max(y1 - y0, 0.7);
    const dim = hidden.has(b.kind) || (searching && !found.has(b));
    if (w > 2 && h > 2) {
      pen.globalAlpha = 1;
      pen.fillStyle = colors.panel;
      pen.fillRect(x0, y0, w, h);
    }
    pen.globalAlpha = dim ? 0.12 : 0.92;
    pen.fillStyle = colors[b.kind];
    pen.fillRect(x0, y0, w, h);
    if (w > 4 && h > 4) {
      pen.globalAlpha = 1;
      pen.strokeStyle = colors.panel;
      pen.lineWidth = 1;
      pen.strokeRect(x0 + 0.5, y0 + 0.5, w - 1, h - 1);
    }
    if (!dim && h > 13 && w > 13) {
      const across = label(b.id, w - 8), text = across || label(b.id, h - 8);
      pen.save();
      pen.globalAlpha = 1;
      pen.fillStyle = letters(colors[b.kind]);
      pen.textAlign = "center";
      pen.translate(x0 + w / 2, y0 + h / 2);
      // What is too narrow for its name has it from bottom to top.
      if (!across) pen.rotate(-Math.PI / 2);
      pen.fillText(text, 0, 0);
      pen.restore();
    }
  }
  pen.globalAlpha = 1;
  for (const [b, color] of [[hovered, colors.ink], [selected, colors.accent]]) {
    if (!b) continue;
    const x0 = xOf(p, b.lower), y0 = yOf(p, b.end);
    pen.strokeStyle = color;
    pen.lineWidth = 2;
    pen.strokeRect(x0, y0, Math.max(xOf(p, b.upper) - x0, 2), Math.max(yOf(p, b.offset) - y0, 2));
  }
}

// The buffer under a point of the canvas.
function bufferAt(x, y) {
  const p = plot();
  if (x < p.left || x > p.right || y < p.top || y > p.bottom) return null;
  const step = view.x0 + ((x - p.left) / (p.right - p.left)) * (view.x1 - view.x0);
  const byte = view.y0 + ((p.bottom - y) / (p.bottom - p.top)) * (view.y1 - view.y0);
  const hit = (b) => b.lower <= step && step < b.upper && b.offset <= byte && byte < b.end && b.bytes > 0;
  return buffers.find((b) => hit(b) && (withPersistent || b.region === "transient")) ?? null;
}

// Scales the view about a point of the canvas; `fx`, `fy` below 1 zoom in.
function zoom(x, y, fx, fy) {
  const p = plot();
  const along = (at, lo, hi) => Math.min(Math.max((at - lo) / (hi - lo), 0), 1);
  scale("x0", "x1", along(x, p.left, p.right), fx, 0, Math.max(steps, 1), Math.min(1, steps));
  scale("y0", "y1", along(p.bottom - y, 0, p.bottom - p.top), fy, bottom(), top_(), 256);
  redraw();
}

function scale(lo, hi, at, factor, min, max, least) {
  const span = view[hi] - view[lo];
  const wanted = Math.min(Math.max(span * factor, least), max - min);
  const pivot = view[lo] + at * span;
  view[lo] = Math.min(Math.max(pivot - at * wanted, min), max - wanted);
  view[hi] = view[lo] + wanted;
}

function move(dx, dy) {
  const p = plot();
  shift("x0", "x1", (-dx / (p.right - p.left)) * (view.x1 - view.x0), 0, Math.max(steps, 1));
  shift("y0", "y1", (dy / (p.bottom - p.top)) * (view.y1 - view.y0), bottom(), top_());
  redraw();
}

function shift(lo, hi, by, min, max) {
  const span = view[hi] - view[lo];
  view[lo] = Math.min(Math.max(view[lo] + by, min), max - span);
  view[hi] = view[lo] + span;
}

// Brings a buffer into sight, with room around it.
function reveal(b) {
  if (b.region === "persistent" && !withPersistent) setPersistent(true);
  const dx = Math.max((b.upper - b.lower) * 3, Math.min(steps, 20)), dy = Math.max((b.end - b.offset) * 6, 4096);
  const span = (lo, hi, room, min, max) => {
    const wide = Math.min(Math.max(room, hi - lo), max - min);
    const start = Math.min(Math.max((lo + hi) / 2 - wide / 2, min), max - wide);
    return [start, start + wide];
  };
  [view.x0, view.x1] = span(b.lower, b.upper, dx, 0, Math.max(steps, 1));
  [view.y0, view.y1] = span(b.offset, b.end, dy, bottom(), top_());
  redraw();
}
