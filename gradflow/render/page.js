// The page around a graph: open and close boxes, pan, zoom, search, hover. State is a small object (which boxes
// are open, where one looks); it is kept in the address, so a view can be linked, and replayed.

"use strict";

const SVG = "http://www.w3.org/2000/svg";
const data = JSON.parse(document.getElementById("graph").textContent);
data.kids = data.parents.map(() => []);
data.parents.forEach((parent, i) => { if (parent >= 0) data.kids[parent].push(i); });

const stage = document.getElementById("stage");
const canvas = document.getElementById("canvas");
const tip = document.getElementById("tip");
const status = document.getElementById("status");
const search = document.getElementById("search");
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;

const state = { open: new Set(data.open), x: 0, y: 0, k: 1 };
let plan = null, boxes = new Map(), shownBefore = new Map(), hits = new Set();

function make(name, attributes, parent, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}

function colourOf(branch) {
  return branch >= 0 && data.branches[branch] ? data.branches[branch].colour : "var(--muted)";
}

const pen = document.createElement("canvas").getContext("2d");
const sizes = new Map();

/** Width and height of a box, from its text. */
function sizeOf(i) {
  if (sizes.has(i)) return sizes.get(i);
  const box = data.boxes[i];
  pen.font = "600 13px " + getComputedStyle(document.body).fontFamily;
  let wide = pen.measureText(box.lines[0]).width;
  pen.font = "11px " + getComputedStyle(document.body).fontFamily;
  for (const line of told(i)) wide = Math.max(wide, pen.measureText(line).width);
  const size = { w: Math.max(46, wide + (data.kids[i].length ? 34 : 22)), h: 26 + 13 * told(i).length };
  sizes.set(i, size);
  return size;
}

/** The lines below the title of a box; parameters also tell the sum and the delta of the step. */
function told(i) {
  const box = data.boxes[i];
  if (box.kind !== "parameter") return box.lines.slice(1);
  let total = 0, delta = 0, known = false, moved = false;
  for (const leaf of leavesOf(i)) {
    const sums = data.sums[leaf];
    if (!sums) continue;
    known = true;
    total = Math.hypot(total, sums.S);
    if (sums.D !== null) { delta = Math.hypot(delta, sums.D); moved = true; }
  }
  const line = known ? ["Σ " + number(total) + (moved ? " → Δ " + number(delta) : "")] : [];
  return box.lines.slice(1).concat(line);
}

function leavesOf(i) {
  return data.kids[i].length ? data.kids[i].flatMap(leavesOf) : [i];
}

function number(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e-3 && size < 1e3) return String(Number(value.toPrecision(3)));
  return value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
}

function draw() {
  plan = layOut(data, state.open, sizeOf);
  canvas.replaceChildren();
  boxes = new Map();
  for (const frame of plan.frames) drawFrame(frame);
  const norms = plan.edges.filter((edge) => edge.norm !== null && isUse(edge)).map((edge) => edge.norm);
  const largest = Math.max(0, ...norms);
  const lines = make("g", {}, canvas);
  plan.edges.forEach((edge, i) => drawEdge(edge, plan.routes[i], largest, lines));
  for (const frame of plan.frames) {
    const place = { x: frame.x + frame.w / 2, y: frame.y + 4, class: "lane-name", fill: colourOf(frame.branch) };
    make("text", place, canvas, data.branches[frame.branch].name);
  }
  for (const node of plan.nodes) if (plan.at.has(node)) drawBox(node);
  shownBefore = plan.at;
  mark();
  remember();
}

function isUse(edge) {
  return data.boxes[edge.t].kind === "parameter";
}

function drawFrame(frame) {
  const group = make("g", { class: "lane" }, canvas);
  make("rect", { x: frame.x, y: frame.y, width: frame.w, height: frame.h, rx: 12, fill: colourOf(frame.branch) }, group);
}

function drawEdge(edge, { points, ahead }, largest, parent) {
  const use = isUse(edge);
  const width = !use ? 1.2 : edge.norm === null || !largest ? 1.8 : Math.max(0.9, (6 * edge.norm) / largest);
  const colour = colourOf(edge.b), size = 5 + width, end = points[points.length - 1];
  const group = make("g", { class: "edge" + (use ? " use" : ""), "data-s": edge.s, "data-t": edge.t }, parent);
  const base = [end[0] - ahead[0] * size, end[1] - ahead[1] * size];
  const d = `M${points[0]} C${[...points.slice(1, -1), base].join(" ")}`;
  make("path", { d, stroke: colour, "stroke-width": width, fill: "none" }, group);
  const half = size * 0.45, corner = (turn) => [base[0] + turn * ahead[1] * half, base[1] + turn * ahead[0] * half];
  make("path", { d: `M${end} L${corner(1)} L${corner(-1)} Z`, fill: colour }, group);
  if (edge.norm === null) return;
  const label = [end[0] - ahead[0] * (size + 20) + Math.abs(ahead[1]) * 22, end[1] - ahead[1] * 14 + Math.abs(ahead[0]) * 13];
  make("text", { x: label[0], y: label[1], class: "norm" }, group, number(edge.norm));
}

function drawBox(i) {
  const box = data.boxes[i], at = plan.at.get(i), canOpen = data.kids[i].length > 0;
  const group = make("g", { class: "box " + box.kind + (canOpen ? " can-open" : ""), tabindex: 0, "data-i": i,
    role: canOpen ? "button" : "img", "aria-label": box.tip.replace(/\n/g, ", ") }, canvas);
  if (canOpen) group.setAttribute("aria-expanded", "false");
  const parameter = box.kind === "parameter";
  const frame = { x: -at.w / 2, y: -at.h / 2, width: at.w, height: at.h, rx: parameter ? 3 : 9 };
  frame.stroke = parameter || (box.kind === "loss" && box.b < 0) ? "var(--ink)" : colourOf(box.b);
  if (box.kind === "loss") frame.style = "fill: " + frame.stroke;
  make("rect", frame, group);
  if (parameter) make("path", { d: `M${-at.w / 2} ${-at.h / 2 + 4}h${at.w}`, class: "lid" }, group);
  const lines = told(i);
  make("text", { y: 4.5 - 6.5 * lines.length, class: "title" }, group, box.lines[0]);
  lines.forEach((line, k) => make("text", { y: 19 - 6.5 * lines.length + 13 * k, class: "line" }, group, line));
  if (canOpen) make("text", { x: at.w / 2 - 9, y: -at.h / 2 + 12, class: "sign" }, group, "+");
  if (data.parents[i] >= 0) {
    const fold = make("g", { class: "fold", transform: `translate(${-at.w / 2 + 9} ${-at.h / 2 + 8})` }, group);
    make("circle", { r: 7 }, fold);
    make("path", { d: "M-3 0h6" }, fold);
    make("title", {}, fold, "close " + nameOf(data.parents[i]));
    fold.addEventListener("click", (event) => { event.stopPropagation(); close(data.parents[i], i); });
  }
  const before = shownBefore.get(i) || shownBefore.get(data.parents[i]);
  const end = `translate(${at.x}px, ${at.y}px)`;
  if (before && !calm && plan.nodes.length < 400) {
    group.style.transform = `translate(${before.x}px, ${before.y}px)`;
    requestAnimationFrame(() => requestAnimationFrame(() => { group.style.transform = end; }));
  } else group.style.transform = end;
  group.addEventListener("click", () => { if (!moved && canOpen) open(i); });
  group.addEventListener("keydown", (event) => keyOnBox(event, i, canOpen));
  group.addEventListener("pointerenter", () => look(i));
  group.addEventListener("pointerleave", () => look(-1));
  group.addEventListener("focus", () => look(i));
  group.addEventListener("blur", () => look(-1));
  boxes.set(i, group);
}

function nameOf(i) {
  return data.boxes[i].lines[0];
}

/** All boxes like one: the same module in every branch, with its parameters. */
function alike(i) {
  const box = data.boxes[i];
  return data.boxes.map((_, k) => k).filter((k) => data.boxes[k].path === box.path && data.kids[k].length
    && data.boxes[k].repeats === box.repeats && depthOf(k) === depthOf(i));
}

function depthOf(i) {
  let depth = 0;
  for (let k = data.parents[i]; k >= 0; k = data.parents[k]) depth++;
  return depth;
}

function open(i) {
  const first = data.kids[i][0];
  for (const one of alike(i)) state.open.add(one);
  state.open.add(i);
  redraw(i, first, nameOf(i) + " is open");
}

function close(i, from) {
  for (const one of [...alike(i), i]) state.open.delete(one);
  redraw(from, i, nameOf(i) + " is closed");
}

/** Draw anew, keeping `after` where `before` was on the screen. */
function redraw(before, after, message) {
  const old = plan.at.get(before);
  draw();
  const now = plan.at.get(after);
  if (old && now) {
    state.x += (old.x - now.x) * state.k;
    state.y += (old.y - now.y) * state.k;
  }
  moveTo();
  if (boxes.has(after)) boxes.get(after).focus({ preventScroll: true });
  status.textContent = `${message}: ${plan.nodes.length} boxes`;
}

function keyOnBox(event, i, canOpen) {
  if ((event.key === "Enter" || event.key === " ") && canOpen) { event.preventDefault(); open(i); }
  if (event.key === "Backspace" && data.parents[i] >= 0) { event.preventDefault(); close(data.parents[i], i); }
}

/** Bring out one box, its arrows and its neighbours; -1 none. */
function look(i) {
  for (const element of canvas.querySelectorAll(".near, .far")) element.classList.remove("near", "far");
  tip.hidden = i < 0;
  if (i < 0) return;
  const near = new Set([i]);
  for (const edge of canvas.querySelectorAll(".edge")) {
    const touches = +edge.dataset.s === i || +edge.dataset.t === i;
    edge.classList.add(touches ? "near" : "far");
    if (touches) { near.add(+edge.dataset.s); near.add(+edge.dataset.t); }
  }
  for (const [k, element] of boxes) if (!near.has(k)) element.classList.add("far");
  tip.textContent = data.boxes[i].tip;
  const place = boxes.get(i).getBoundingClientRect(), frame = stage.getBoundingClientRect();
  const right = place.right + 10 + tip.offsetWidth < frame.right;
  tip.style.left = (right ? place.right + 10 : Math.max(frame.left, place.left - tip.offsetWidth - 10)) - frame.left + "px";
  tip.style.top = Math.min(Math.max(place.top, frame.top), frame.bottom - tip.offsetHeight - 4) - frame.top + "px";
}

/** Mark what the search finds: boxes that match, or that hold what matches. */
function mark() {
  for (const [i, element] of boxes) element.classList.toggle("hit", hits.size > 0 && leavesOf(i).concat(i).some((k) => hits.has(k)));
}

function find() {
  const words = search.value.trim().toLowerCase();
  hits = new Set();
  if (words) data.boxes.forEach((box, i) => { if (box.find.includes(words)) hits.add(i); });
  status.textContent = words ? `${hits.size} found` : "";
  mark();
}

/** Open what hides the first hit, and go there. */
function go() {
  const words = search.value.trim().toLowerCase();
  const named = [...hits].filter((i) => data.boxes[i].path.toLowerCase().includes(words));
  named.sort((a, b) => data.boxes[a].path.length - data.boxes[b].path.length || depthOf(a) - depthOf(b));
  const deepest = named.length ? named[0] : [...hits].sort((a, b) => depthOf(b) - depthOf(a))[0];
  if (deepest === undefined) return;
  for (let k = data.parents[deepest]; k >= 0; k = data.parents[k]) for (const one of [...alike(k), k]) state.open.add(one);
  draw();
  let target = deepest;
  while (!plan.at.has(target)) target = data.kids[target][0]; // it is open itself
  const at = plan.at.get(target);
  state.k = Math.max(state.k, 0.8);
  state.x = stage.clientWidth / 2 - at.x * state.k;
  state.y = stage.clientHeight / 2 - at.y * state.k;
  moveTo();
  boxes.get(target).focus({ preventScroll: true });
}

function moveTo() {
  canvas.setAttribute("transform", `translate(${state.x} ${state.y}) scale(${state.k})`);
  remember();
}

function zoom(factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
  const k = Math.min(4, Math.max(0.02, state.k * factor));
  state.x = x - ((x - state.x) * k) / state.k;
  state.y = y - ((y - state.y) * k) / state.k;
  state.k = k;
  moveTo();
}

function fit() {
  const places = [...plan.at.values(), ...plan.frames.map((f) => ({ x: f.x + f.w / 2, y: f.y + f.h / 2, w: f.w, h: f.h }))];
  const left = Math.min(...places.map((p) => p.x - p.w / 2)), right = Math.max(...places.map((p) => p.x + p.w / 2));
  const top = Math.min(...places.map((p) => p.y - p.h / 2)), bottom = Math.max(...places.map((p) => p.y + p.h / 2));
  const wide = stage.clientWidth, tall = stage.clientHeight;
  state.k = Math.min(1.4, (wide - 32) / (right - left), (tall - 32) / (bottom - top));
  state.x = wide / 2 - ((left + right) / 2) * state.k;
  state.y = tall / 2 - ((top + bottom) / 2) * state.k;
  moveTo();
}

let timer = 0;

function remember() {
  clearTimeout(timer);
  timer = setTimeout(() => {
    const view = { open: [...state.open], x: Math.round(state.x), y: Math.round(state.y), k: +state.k.toFixed(3) };
    try { history.replaceState(null, "", "#" + encodeURIComponent(JSON.stringify(view))); } catch { /* a page from disk */ }
  }, 300);
}

function recall() {
  try {
    const view = JSON.parse(decodeURIComponent(location.hash.slice(1)));
    const known = view.open.filter((i) => Number.isInteger(i) && i >= 0 && i < data.boxes.length);
    state.open = new Set(known);
    if ([view.x, view.y, view.k].every(Number.isFinite)) { Object.assign(state, { x: view.x, y: view.y, k: view.k }); return true; }
  } catch { /* no view in the address */ }
  return false;
}

let grip = null, moved = false;
stage.addEventListener("pointerdown", (event) => { grip = [event.clientX, event.clientY]; moved = false; });
stage.addEventListener("pointermove", (event) => {
  if (!grip) return;
  const step = [event.clientX - grip[0], event.clientY - grip[1]];
  if (!moved && Math.hypot(...step) < 4) return;
  moved = true;
  state.x += step[0];
  state.y += step[1];
  grip = [event.clientX, event.clientY];
  moveTo();
});
addEventListener("pointerup", () => { grip = null; });
stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  const place = stage.getBoundingClientRect();
  zoom(Math.exp(-event.deltaY * 0.0015), event.clientX - place.left, event.clientY - place.top);
}, { passive: false });
stage.addEventListener("keydown", (event) => {
  const steps = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
  if (steps[event.key]) { state.x += steps[event.key][0]; state.y += steps[event.key][1]; moveTo(); event.preventDefault(); }
  if (event.key === "+" || event.key === "=") zoom(1.25);
  if (event.key === "-") zoom(0.8);
  if (event.key === "0") fit();
});
addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== search) { event.preventDefault(); search.focus(); }
  if (event.key === "Escape") { search.value = ""; find(); look(-1); }
});
search.addEventListener("input", find);
search.addEventListener("keydown", (event) => { if (event.key === "Enter") go(); });

const actions = {
  fit,
  in: () => zoom(1.25),
  out: () => zoom(0.8),
  close: () => { state.open.clear(); draw(); fit(); },
  start: () => { state.open = new Set(data.open); draw(); fit(); },
  deeper: () => {
    for (const i of plan.nodes) if (data.kids[i].length) state.open.add(i);
    draw();
    fit();
  },
  theme: () => {
    const root = document.documentElement;
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  },
};
for (const button of document.querySelectorAll("[data-do]")) button.addEventListener("click", () => actions[button.dataset.do]());

const isRecalled = recall();
draw();
if (isRecalled) moveTo(); else fit();
