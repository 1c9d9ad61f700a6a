// What all widgets share. This file stands before each widget's own in one module, so its functions are simply
// there: make, draw, openPage, number, percent, signed, calm. Nothing here or in a widget reaches the network.
//
//   function render({ model, el }) {
//     const page = openPage(model, el, { label: "Embedding plane" });
//     const go = make("button", { onclick: () => page.choose({ margin: 1 }) }, "reset");
//     page.root.append(go, page.live);
//     page.on("change:state", () => page.say(`margin ${page.state.margin}`));
//     return page.close;                  // anywidget calls it when the view goes
//   }
//   export default { render };

const SVG = "http://www.w3.org/2000/svg";
const FOCUSABLE = "button, input, select, textarea, summary, a[href], [tabindex]";
const calm = globalThis.matchMedia?.("(prefers-reduced-motion: reduce)").matches ?? false;

/** Make an HTML element. `on...` attributes are listeners, `true` an empty attribute, `false` and null none. */
function make(name, attributes = {}, ...children) {
  return dressed(document.createElement(name), attributes, children);
}

/** Make an SVG element; attributes as for `make`. */
function draw(name, attributes = {}, ...children) {
  return dressed(document.createElementNS(SVG, name), attributes, children);
}

function dressed(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  // Notebooks take keys in the capture phase: only a mark on the focused element itself keeps them away.
  if (element.matches(FOCUSABLE)) element.setAttribute("data-lm-suppress-shortcuts", "true");
  return element;
}

/** Open a widget's page on an element: its root, its state, a live text for screen readers, and its closing. */
function openPage(model, el, { label }) {
  const undo = [];
  const live = make("p", { class: "gf-live", role: "status", "aria-live": "polite" });
  const root = make("div", { class: "gf-widget", role: "group", "aria-label": label });
  root.addEventListener("keydown", (event) => event.stopPropagation()); // else "b" inserts a cell in JupyterLab
  el.replaceChildren(root);
  return {
    root, live, model,
    /** What the reader chose; never change it in place, use `choose`. */
    get state() { return model.get("state"); },
    /** Change some entries of the state, here and in the kernel. */
    choose(changes) {
      const before = model.get("state");
      if (Object.entries(changes).every(([key, value]) => same(before[key], value))) return;
      model.set("state", { ...before, ...changes });
      model.save_changes();
    },
    /** Tell in words what changed; shown, and read out by screen readers. */
    say(words) { if (live.textContent !== words) live.textContent = words; },
    /** Listen to the model ("change:state", "msg:custom") until the page closes. */
    on(event, listener) { model.on(event, listener); undo.push(() => model.off(event, listener)); },
    /** Do something when the page closes. */
    onClose(action) { undo.push(action); },
    close() { for (const action of undo.splice(0)) action(); },
  };
}

function same(a, b) {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}

/** A magnitude in three significant digits, as the figures and tables write it. */
function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === 0) return "0";
  if (!Number.isFinite(value)) return value < 0 ? "-inf" : "inf";
  const size = Math.abs(value);
  if (size >= 1e-3 && size < 999.5) return String(Number(value.toPrecision(3)));
  const [mantissa, exponent] = value.toExponential(2).split("e");
  return `${Number(mantissa)}e${Number(exponent)}`;
}

/** A fraction in percent, with a true minus. */
function percent(fraction) {
  if (fraction === null || fraction === undefined || Number.isNaN(fraction)) return "–";
  const hundredths = 100 * fraction;
  if (hundredths !== 0 && Math.abs(hundredths) < 0.01) return "≈ 0 %";
  const few = hundredths === 0 || Math.abs(hundredths) >= 0.95;
  const text = few ? hundredths.toFixed(0) : String(Number(hundredths.toPrecision(1)));
  return `${text} %`.replace("-", "−");
}

/** A cosine or a share with its sign, a true minus and two decimals. */
function signed(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const text = (value >= 0 ? "+" : "") + value.toFixed(2);
  return /^[+-]0\.00$/.test(text) ? "0.00" : text.replace("-", "−");
}
