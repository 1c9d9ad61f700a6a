// What the three playgrounds share, after the prelude: asking the kernel, controls, and marks that can be moved.
// The page computes nothing: it asks the kernel to do something and draws the view that comes back.

let pages = 0; // ids of patterns must differ between the views of one document

/**
 * Ask the kernel to do something. A few questions are under way at most, and of several moves that wait only the
 * latest is sent. A few, not one: a server without our extension holds a small answer back until the page has
 * acknowledged the last, which takes 40 ms unless the page has something else to send meanwhile (Nagle's algorithm).
 */
const MOST_FLYING = 3;

function asking(page) {
  const own = `${Date.now()}-${Math.random()}`;
  const waiting = [], flying = [];
  let wishes = 0;
  const send = () => {
    while (flying.length < MOST_FLYING && waiting.length) {
      const { todo, given, wish } = waiting.shift();
      flying.push(wish);
      page.model.send({ todo, given, asked: `${own}/${wish}` });
    }
    page.root.toggleAttribute("data-waiting", flying.length > 0);
  };
  const answered = (asked = "") => {
    const [whose, wish] = asked.split("/");
    if (whose !== own) return false;
    flying.splice(0, flying.indexOf(Number(wish)) + 1);
    page.root.setAttribute("data-answered", wish);
    send();
    return true;
  };
  page.on("change:view", () => answered(page.model.get("view").asked));
  page.on("msg:custom", ({ refused, asked }) => { if (refused && answered(asked)) page.say(refused); });
  return {
    /** `replaces` names what a later wish makes needless, such as the place of one point. */
    ask(todo, given = {}, replaces = null) {
      const wish = (wishes += 1), last = waiting[waiting.length - 1];
      if (replaces !== null && last?.replaces === replaces) Object.assign(last, { todo, given, wish });
      else waiting.push({ todo, given, replaces, wish });
      send();
    },
    get isIdle() { return flying.length + waiting.length === 0; },
  };
}

/** Say something once nothing has changed for a moment: a drag must not flood a screen reader. */
function hushed(say, wait = 400) {
  let timer = 0;
  return (words) => { clearTimeout(timer); timer = setTimeout(() => say(words), wait); };
}

function button(words, onclick, title = null) {
  return make("button", { type: "button", onclick, title }, words);
}

/** A labelled list to choose from; `put(value)` shows a choice. */
function chooser(label, options, onchoose) {
  const list = make("select", { onchange: () => onchoose(list.value) },
    ...options.map(([value, words]) => make("option", { value }, words)));
  return { box: make("label", {}, label, list), put: (value) => { list.value = value; } };
}

/** A labelled slider with its number; `put(value)` shows a value, unless it is being moved. */
function slider(label, range, onmove, written = (value) => value.toFixed(2)) {
  const told = make("output", {});
  const name = make("span", {}, label);
  const rail = make("input", { type: "range", ...range, "aria-label": label,
    oninput: () => { told.textContent = written(Number(rail.value)); onmove(Number(rail.value)); } });
  return {
    box: make("label", { class: "gf-slider" }, name, rail, told),
    put(value, settled = true) {
      if (settled) rail.value = value;
      told.textContent = written(Number(rail.value));
      rail.setAttribute("aria-valuetext", written(Number(rail.value)));
    },
    rename(words, limits) {
      name.textContent = words;
      rail.setAttribute("aria-label", words);
      for (const [key, value] of Object.entries(limits)) rail.setAttribute(key, value);
    },
  };
}

/** Buttons of which one is pressed. */
function switches(label, options, onchoose) {
  const buttons = options.map(([value, words]) => [value, button(words, () => onchoose(value))]);
  const box = make("span", { class: "gf-switches", role: "group", "aria-label": label }, ...buttons.map(([, b]) => b));
  return { box, put: (value) => { for (const [v, b] of buttons) b.setAttribute("aria-pressed", v === value); } };
}

/** The shape of a branch around (0, 0): a circle, a square, a triangle, so that colour is not all. */
function shape(marker, size) {
  if (marker === "s") return draw("rect", { x: -size * 0.9, y: -size * 0.9, width: size * 1.8, height: size * 1.8 });
  if (marker === "^") return draw("path", { d: `M0 ${-size * 1.4} L${size * 1.4} ${size} L${-size * 1.4} ${size} Z` });
  return draw("circle", { r: size });
}

/** A mark of a branch with its letter, at (0, 0) of a group. */
function mark(look, size = 10) {
  const outline = shape(look.marker, size);
  outline.setAttribute("class", "gf-shape");
  outline.style.setProperty("--gf-own", look.colour);
  const letter = draw("text", { class: "gf-letter", "text-anchor": "middle", y: size * (look.marker === "^" ? 0.62 : 0.4) }, look.letter);
  letter.style.setProperty("--gf-on", look.ink);
  return draw("g", { class: "gf-mark" }, outline, letter);
}

/** A path for an arrow from one place to another; empty where it would be too short to see. */
function arrowPath([x, y], [u, v], head = 9) {
  const length = Math.hypot(u - x, v - y);
  if (length < 1.5) return "";
  const [a, b] = [(u - x) / length, (v - y) / length], h = Math.min(head, length * 0.7), w = h * 0.45;
  const [p, q] = [u - a * h, v - b * h];
  return `M${x} ${y} L${p} ${q} M${u} ${v} L${p - b * w} ${q + a * w} L${p + b * w} ${q - a * w} Z`;
}

/** A square plane about the origin, with axes and a grid; `room` is half its side in its own units. */
function plane(side, label) {
  const svg = draw("svg", { viewBox: `0 0 ${side} ${side}`, class: "gf-plane", role: "group", "aria-label": label });
  const grid = draw("path", { class: "gf-grid" }), axes = draw("path", { class: "gf-axes" });
  const scale = draw("text", { class: "gf-small", x: side - 4, y: side / 2 - 4, "text-anchor": "end" });
  axes.setAttribute("d", `M0 ${side / 2} H${side} M${side / 2} 0 V${side}`);
  svg.append(draw("rect", { class: "gf-ground", width: side, height: side }), grid, axes, scale);
  let room = 2;
  const self = {
    svg, side,
    at: ([x, y]) => [(side / 2) * (1 + x / room), (side / 2) * (1 - y / room)],
    held: 0, // points under a finger: the scale must not run away from it
    box: null, // where the plane is on the screen while a point is held: to ask at each move is slow
    get room() { return room; },
    set room(value) {
      if (self.held) return;
      room = value;
      const unit = room > 10 ? 5 : 1;
      let lines = "";
      for (let v = unit; v < room; v += unit) {
        for (const w of [v, -v]) { const [x, y] = self.at([w, w]); lines += `M${x} 0 V${side} M0 ${y} H${side} `; }
      }
      grid.setAttribute("d", lines);
      scale.textContent = String(room);
    },
    /** Where a pointer is, in the plane's own units. */
    under(event) {
      const box = self.box ?? svg.getBoundingClientRect();
      const turned = [(2 * (event.clientX - box.left)) / box.width - 1, 1 - (2 * (event.clientY - box.top)) / box.height];
      return turned.map((v) => Math.max(-1, Math.min(1, v)) * room);
    },
  };
  return self;
}

/**
 * Let a mark be dragged, and moved with the arrow keys (Shift: larger steps).
 * `onmove` is told each new place; while a finger is on it, it stays under the finger.
 */
function movable(group, plane, label, onmove, onrest = () => {}) {
  let place = [0, 0], held = false, wanted = false;
  const hold = (now) => {
    if (held === now) return;
    held = now;
    plane.held += now ? 1 : -1;
    plane.box = plane.held ? plane.svg.getBoundingClientRect() : null;
    if (!now) onrest();
  };
  const put = ([x, y]) => {
    place = [x, y];
    const [u, v] = plane.at(place);
    group.setAttribute("transform", `translate(${u} ${v})`);
    group.setAttribute("aria-valuenow", x.toFixed(2));
    group.setAttribute("aria-valuetext", `x ${x.toFixed(2)}, y ${y.toFixed(2)}`.replaceAll("-", "−"));
  };
  const go = (to) => { wanted = true; put(to); onmove(to); };
  const facts = { tabindex: 0, role: "slider", "aria-label": label, "aria-roledescription": "point to move",
    "aria-valuemin": -100, "aria-valuemax": 100, "data-lm-suppress-shortcuts": "true" };
  for (const [key, value] of Object.entries(facts)) group.setAttribute(key, value);
  group.classList.add("gf-movable");
  group.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    hold(true);
    group.setPointerCapture(event.pointerId);
    group.focus();
    event.preventDefault();
  });
  group.addEventListener("pointermove", (event) => { if (held) go(plane.under(event)); });
  for (const end of ["pointerup", "pointercancel"]) group.addEventListener(end, () => hold(false));
  group.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!way) return;
    event.preventDefault();
    const far = event.shiftKey ? 0.25 : 0.05;
    go([place[0] + far * way[0], place[1] + far * way[1]]);
  });
  return {
    /** Show where the kernel says it is; `settled` is false while newer wishes are on their way. */
    put(to, settled) { if (!held && (settled || !wanted)) { wanted = false; put(to); } },
  };
}
