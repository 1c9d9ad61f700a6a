// An unrolled recurrent cell: what each time step contributes to one matrix, on a logarithmic scale.

const CELLS = [["tanh", "tanh"], ["linear", "linear"]];
const MATRICES = [["input", "U (input)"], ["recurrent", "W (recurrent)"]];
const H = 300, LEFT = 52, RIGHT = 12, TOP = 12, FLOOR = 196, ZERO = 216, BOXES = 238;

function render({ model, el }) {
  const page = openPage(model, el, { label: "A recurrent cell, unrolled in time" });
  const asker = asking(page), sayLater = hushed((words) => page.say(words));
  page.live.classList.add("gf-unseen");
  const controls = timeControls(asker), picture = unrolled(asker, page.onClose);
  const headline = make("p", { class: "gf-headline" }), told = make("p", { class: "gf-formula" });
  page.root.classList.add("gf-playground");
  page.root.append(controls.box, headline, told, picture.svg, picture.caption, page.live);
  const show = () => {
    const view = model.get("view");
    controls.show(view, asker.isIdle);
    picture.show(view);
    headline.textContent = view.headline;
    told.textContent = spokenStep(view);
    sayLater(`${view.headline} ${spokenStep(view)}`);
  };
  page.on("change:view", show);
  show();
  return page.close;
}

function timeControls({ ask }) {
  const change = (changes) => ask("change", changes, Object.keys(changes).join());
  const length = slider("time steps T", { min: 2, max: 40, step: 1 }, (value) => change({ length: value }), (value) => String(value));
  const radius = slider("spectral radius ρ", { min: 0, max: 2, step: 0.05 }, (value) => change({ radius: value }));
  const cell = switches("cell", CELLS, (value) => change({ cell: value }));
  const matrix = chooser("matrix", MATRICES, (value) => change({ matrix: value }));
  const box = make("div", { class: "gf-controls" },
    make("div", { class: "gf-row" }, length.box, radius.box, button("reset", () => ask("reset"))),
    make("div", { class: "gf-row" }, make("span", {}, "cell"), cell.box, matrix.box));
  return {
    box,
    show(view, settled) {
      length.put(view.length, settled);
      radius.put(view.radius, settled);
      cell.put(view.cell);
      matrix.put(view.matrix);
    },
  };
}

function spokenStep(view) {
  const norm = view.norms[view.focus - 1];
  const share = norm ? `, ${number(norm / view.norms[view.length - 1])} times the last` : ": zero, which is not absent";
  return `Step ${view.focus} of ${view.length} contributes ${number(norm)}${share}. The sum of all has norm ${number(view.sum)}.`;
}

function unrolled({ ask }, onClose) {
  const svg = draw("svg", { class: "gf-unrolled", tabindex: 0, role: "slider", "aria-valuemin": 1,
    "aria-label": "time step: press the arrow keys to read what each contributes" });
  const axis = draw("g", {}), bars = draw("g", {}), chain = draw("g", {}), law = draw("path", { class: "gf-law" });
  svg.append(axis, bars, law, chain);
  const caption = make("p", { class: "gf-caption" });
  let view = null, width = 0;
  const choose = (step) => ask("change", { focus: Math.max(1, Math.min(view.length, step)) }, "focus");
  const keys = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 5, PageDown: -5, Home: -99, End: 99 };
  let wanted = 1;
  svg.addEventListener("keydown", (event) => {
    if (!(event.key in keys)) return;
    event.preventDefault();
    wanted = Math.max(1, Math.min(view.length, wanted + keys[event.key]));
    choose(wanted);
  });
  svg.addEventListener("pointerdown", (event) => {
    const box = svg.getBoundingClientRect(), at = event.clientX - box.left;
    wanted = Math.floor((at - LEFT) / ((width - LEFT - RIGHT) / view.length)) + 1;
    choose(wanted);
  });
  const paint = () => {
    const place = { ...view, width };
    svg.setAttribute("viewBox", `0 0 ${width} ${H}`);
    axis.replaceChildren(...ruler(place));
    bars.replaceChildren(...view.norms.map((norm, i) => barOf(place, norm, i)));
    law.setAttribute("d", lawOf(place));
    chain.replaceChildren(...boxes(place));
  };
  const watcher = new ResizeObserver(() => { // letters keep their size: the picture is drawn as wide as it is shown
    if (!view || Math.abs(svg.clientWidth - width) < 1) return;
    width = svg.clientWidth;
    paint();
  });
  watcher.observe(svg);
  onClose(() => watcher.disconnect());
  return {
    svg, caption,
    show(now) {
      view = now;
      wanted = view.focus;
      width = svg.clientWidth || 720;
      svg.setAttribute("aria-valuemax", view.length);
      svg.setAttribute("aria-valuenow", view.focus);
      svg.setAttribute("aria-valuetext", spokenStep(view));
      paint();
      caption.textContent = `Dashed: what the last step contributes, times ρ for each step back` +
        (view.cell === "linear" && view.matrix === "input" ? " (exact for this matrix of a linear cell)." : ".");
    },
  };
}

function wide(view) {
  return (view.width - LEFT - RIGHT) / view.length;
}

function middle(view, i) {
  return LEFT + (i + 0.5) * wide(view);
}

function height(view, value) {
  const [low, high] = view.decades;
  return FLOOR - ((Math.log10(value) - low) / (high - low)) * (FLOOR - TOP);
}

function ruler(view) {
  const [low, high] = view.decades, every = Math.ceil((high - low) / 7);
  const marks = [];
  for (let power = low; power <= high; power += every) {
    const y = height(view, 10 ** power);
    marks.push(draw("line", { class: power === 0 ? "gf-axis" : "gf-grid", x1: LEFT, x2: view.width - RIGHT, y1: y, y2: y }), powerOfTen(LEFT - 6, y + 4, power));
  }
  return [...marks, draw("text", { class: "gf-small", x: LEFT - 6, y: ZERO + 4, "text-anchor": "end" }, "zero")];
}

function powerOfTen(x, y, power) {
  if (power === 0) return draw("text", { class: "gf-small", x, y, "text-anchor": "end" }, "1");
  const raised = draw("tspan", { dy: -4, "font-size": 8 }, String(power).replace("-", "−"));
  return draw("text", { class: "gf-small", x, y, "text-anchor": "end" }, "10", raised);
}

function barOf(view, norm, i) {
  const x = middle(view, i), half = Math.min(14, wide(view) * 0.36), chosen = i + 1 === view.focus;
  if (!norm) return draw("circle", { class: "gf-nil", cx: x, cy: ZERO, r: Math.min(4, half), "data-chosen": chosen });
  const y = Math.max(TOP, height(view, norm));
  return draw("rect", { class: "gf-time-bar", x: x - half, width: 2 * half, y, height: Math.max(1, FLOOR - y), "data-chosen": chosen });
}

function lawOf(view) {
  return view.powers.map((v, i) => [middle(view, i), v]).filter(([, v]) => v > 1e-300)
    .map(([x, v], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${height(view, v).toFixed(1)}`).join(" ");
}

/** The cells in their order, and the way back of the gradient from the score. */
function boxes(view) {
  const half = Math.min(16, wide(view) * 0.4), isTight = wide(view) < 20, cells = [], names = [];
  for (let i = 0; i < view.length; i += 1) {
    const x = middle(view, i), chosen = i + 1 === view.focus;
    cells.push(draw("rect", { class: "gf-cell", x: x - half, y: BOXES, width: 2 * half, height: 24, rx: 3, "data-chosen": chosen }));
    const isNamed = !isTight || ((i + 1) % 5 === 0 && Math.abs(i + 1 - view.focus) > 2); // numbers are wider than cells
    if (isNamed || chosen) names.push(draw("text", { class: `gf-small${isTight ? " gf-halo" : ""}`, x, y: BOXES + 16, "text-anchor": "middle", "data-chosen": chosen }, String(i + 1)));
  }
  const y = BOXES + 36, back = draw("path", { class: "gf-back", d: arrowPath([middle(view, view.length - 1), y], [middle(view, 0), y], 10) });
  const factor = view.fading === null ? "" : `× ${number(view.fading)} for each step back`;
  return [...cells, ...names, back, draw("text", { class: "gf-zone-words", x: (LEFT + view.width) / 2, y: y + 18, "text-anchor": "middle" }, factor)];
}

export default { render };
