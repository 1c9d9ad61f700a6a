// One encoder or three copies: what the unit square becomes, how far the copies drift, what each weight was moved by.

const NAMES = ["anchor", "positive", "negative"];
const MODES = [["shared", "one, shared"], ["copied", "three copies"], ["averaged", "copies, averaged"]];
const OPTIMIZERS = [["SGD", "SGD"], ["momentum", "SGD + momentum"], ["Adam", "Adam"]];

function render({ model, el }) {
  const page = openPage(model, el, { label: "One encoder, or three copies of it" });
  const looks = model.get("looks"), asker = asking(page), sayLater = hushed((words) => page.say(words));
  page.live.classList.add("gf-unseen");
  const controls = sharingControls(asker);
  const probe = probePlane(asker), spots = spotPlane(looks), charts = [chart("loss"), chart("drift")], table = updateTable();
  const headline = make("p", { class: "gf-headline" });
  page.root.classList.add("gf-playground");
  page.root.append(
    controls.box, headline,
    make("div", { class: "gf-panels gf-three gf-sharing" },
      make("section", {}, make("h4", {}, "One input x"), probe.plane.svg, probe.caption),
      make("section", {}, make("h4", {}, "Where each encoder sends it, and the unit square"), spots.plane.svg),
      make("section", {}, make("h4", {}, "Step by step"), make("div", { class: "gf-charts" }, ...charts.map((c) => c.svg)), keyOfLines())),
    table.box, page.live);
  const show = () => {
    const view = model.get("view"), settled = asker.isIdle;
    controls.show(view, settled);
    probe.show(view, settled);
    spots.show(view);
    for (const one of charts) one.show(view);
    table.show(view);
    headline.textContent = view.headline;
    sayLater(view.headline);
  };
  page.on("change:view", show);
  show();
  return page.close;
}

function sharingControls({ ask }) {
  const change = (changes) => ask("change", changes, Object.keys(changes).join());
  const mode = switches("encoders", MODES, (value) => change({ mode: value }));
  const optimizer = chooser("optimizer", OPTIMIZERS, (value) => change({ optimizer: value }));
  const steps = slider("step", { min: 0, max: 100, step: 1 }, (value) => change({ steps: value }), (value) => String(value));
  const box = make("div", { class: "gf-controls" },
    make("div", { class: "gf-row" }, mode.box, optimizer.box),
    make("div", { class: "gf-row" }, steps.box, button("1 step", () => ask("step", { count: 1 })),
      button("10 steps", () => ask("step", { count: 10 })), button("reset", () => ask("reset"))));
  return {
    box,
    show(view, settled) {
      mode.put(view.mode);
      optimizer.put(view.optimizer);
      steps.put(view.steps, settled);
    },
  };
}

function probePlane({ ask }) {
  const space = plane(220, "One input: drag it, or focus it and press the arrow keys");
  const dot = draw("circle", { r: 8, class: "gf-shape" });
  dot.style.setProperty("--gf-own", "var(--gf-ink)");
  const square = draw("path", { class: "gf-outline", stroke: "var(--gf-muted)" });
  const group = draw("g", { class: "gf-mark" }, dot);
  space.svg.append(square, group);
  const handle = movable(group, space, "the input", (to) => ask("change", { probe: to }, "probe"));
  const caption = make("p", { class: "gf-caption" }, "Drag it. Every encoder is shown the same input.");
  return {
    plane: space, caption,
    show(view, settled) {
      space.room = 2;
      square.setAttribute("d", polygon([[0, 0], [1, 0], [1, 1], [0, 1]], space));
      handle.put(view.probe, settled);
    },
  };
}

function polygon(corners, space) {
  return `M${corners.map((corner) => space.at(corner).join(" ")).join(" L")} Z`;
}

const DASHES = { anchor: "", positive: "7 3", negative: "2 3" };

function spotPlane(looks) {
  const space = plane(320, "");
  const told = draw("title", {}), outlines = draw("g", {}), dots = draw("g", {});
  space.svg.setAttribute("role", "img");
  space.svg.removeAttribute("aria-label");
  space.svg.prepend(told);
  space.svg.append(outlines, dots);
  return {
    plane: space,
    show(view) {
      space.room = view.room;
      const isOne = view.mode === "shared";
      const shown = isOne ? ["anchor"] : NAMES;
      outlines.replaceChildren(...shown.map((name) => draw("path", { class: "gf-outline", d: polygon(view.outlines[name], space),
        stroke: isOne ? "var(--gf-ink)" : looks[name].colour, "stroke-dasharray": isOne ? "" : DASHES[name] })));
      const groups = NAMES.map((name) => {
        const dot = mark(looks[name], 9), [x, y] = space.at(view.spots[name]);
        dot.setAttribute("transform", `translate(${x} ${y})`);
        return dot;
      });
      const alike = isOne ? "W" : view.drift === 0 ? "APN" : "";
      dots.replaceChildren(...(alike ? [together(space.at(view.spots.anchor), alike)] : groups.reverse()));
      told.textContent = NAMES.map((name) => `${name} sends it to ${view.spots[name].map(plain).join(", ")}`).join("; ");
    },
  };
}

/** One mark for all three branches. */
function together([x, y], letter) {
  const dot = mark({ marker: "o", colour: "var(--gf-ink)", ink: "var(--gf-paper)", letter }, letter.length > 1 ? 17 : 11);
  dot.lastChild.setAttribute("y", 4);
  dot.setAttribute("transform", `translate(${x} ${y})`);
  return dot;
}

function plain(value) {
  return value.toFixed(2).replace("-", "−");
}

const LINES = { shared: "", copied: "6 3", averaged: "2 2.5" };
const CHARTS = { loss: "loss", drift: "drift: largest distance between two weights" };

/** A curve for each way of training, the one looked at in bold, with a line at the step. */
function chart(name) {
  const W = 340, H = 128, left = 34, right = 8, top = 18, bottom = 18;
  const svg = draw("svg", { viewBox: `0 0 ${W} ${H}`, class: "gf-chart", role: "img" });
  const told = draw("title", {}), lines = draw("g", {}), labels = draw("g", {}), now = draw("line", { class: "gf-now", y1: top, y2: H - bottom });
  svg.append(told, draw("text", { x: 2, y: 11, class: "gf-entry" }, CHARTS[name]),
    draw("path", { class: "gf-axes", d: `M${left} ${top} V${H - bottom} H${W - right}` }), labels, lines, now);
  return {
    svg,
    show(view) {
      const curves = Object.fromEntries(MODES.map(([mode]) => [mode, view.curves[mode][name]]));
      const length = Math.max(10, ...Object.values(curves).map((c) => c.length - 1));
      const most = Math.max(1e-9, ...Object.values(curves).flat());
      const x = (i) => left + (i / length) * (W - left - right), y = (v) => H - bottom - (v / most) * (H - top - bottom);
      lines.replaceChildren(...MODES.map(([mode]) => draw("path", { class: "gf-curve", "data-chosen": mode === view.mode, "data-mode": mode,
        "stroke-dasharray": LINES[mode], d: curves[mode].map((v, i) => `${i ? "L" : "M"}${x(i).toFixed(1)} ${y(v).toFixed(1)}`).join(" ") })));
      now.setAttribute("x1", x(view.steps));
      now.setAttribute("x2", x(view.steps));
      labels.replaceChildren(
        tick(left - 4, y(most) + 4, number(most), "end"), tick(left - 4, y(0) + 3, "0", "end"),
        tick(left, H - 5, "0", "middle"), tick(W - right, H - 5, `step ${length}`, "end"));
      told.textContent = `${CHARTS[name]} at step ${view.steps}: ` +
        MODES.map(([mode, words]) => `${words} ${number(curves[mode][Math.min(view.steps, curves[mode].length - 1)])}`).join(", ");
    },
  };
}

function tick(x, y, words, anchor) {
  return draw("text", { x, y, class: "gf-small", "text-anchor": anchor }, words);
}

function keyOfLines() {
  return make("ul", { class: "gf-key" }, ...MODES.map(([mode, words]) => make("li", {},
    draw("svg", { viewBox: "0 0 24 16", class: "gf-wide", "aria-hidden": "true" }, draw("path", { class: "gf-curve", d: "M0 8 H24", "stroke-dasharray": LINES[mode] })), words)));
}

/** What the last update of each weight was made of. */
function updateTable() {
  const body = make("tbody", {});
  const heads = ["weight", ...NAMES, "‖W.grad‖", "‖Δ‖"].map((words) => make("th", { scope: "col" }, words));
  const caption = make("caption", {});
  const table = make("table", { class: "gf-updates" }, caption, make("thead", {}, make("tr", {}, ...heads)), body);
  const box = make("div", { class: "gf-scroll", tabindex: 0, role: "region", "aria-label": "what each weight was moved by" }, table);
  return {
    box,
    show(view) {
      const mean = view.mode === "averaged" ? "; before the step, every W.grad is replaced by their mean" : "";
      caption.textContent = view.steps ? `Norms in the update that led to step ${view.steps}${mean}` : "No update yet: the start is equal";
      body.replaceChildren(...view.updates.map((row) => make("tr", {}, make("th", { scope: "row" }, row.weight),
        ...[...NAMES.map((name) => row.parts[name]), row.sum, row.moved].map((v, i) => cell(v, view.steps && i < 3)))));
    },
  };
}

function cell(value, canBeAbsent) {
  return value === null ? make("td", { class: "gf-absent" }, canBeAbsent ? "absent" : "–") : make("td", {}, number(value));
}

export default { render };
