// A prediction: a question, a way to commit to a guess, and the answer once there is one.
// Everything shown is in the trait `state`; the reader's guess goes into the trait `guess`.

let cards = 0;

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// Without this, letters typed here are shortcuts of the notebook ("b" would insert a cell).
const OWN_KEYS = { "data-lm-suppress-shortcuts": "true" };

function choiceField(state, name) {
  const list = element("div", "", { class: "gfl-choices" });
  for (const choice of state.choices) {
    const label = element("label");
    label.append(element("input", "", { type: "radio", name, value: choice, ...OWN_KEYS }), element("span", choice));
    list.append(label);
  }
  return list;
}

function numberField(state) {
  const label = element("label", "Your guess ");
  label.append(element("input", "", { type: "text", inputmode: "decimal", autocomplete: "off", size: "10", ...OWN_KEYS }));
  if (state.unit) label.append(element("span", ` ${state.unit}`));
  return label;
}

function form(state, name, commit) {
  const made = element("form");
  const fields = element("fieldset");
  fields.append(element("legend", `Predict. ${state.question}`));
  fields.append(state.choices ? choiceField(state, name) : numberField(state));
  fields.append(element("button", "Commit", { type: "submit", ...OWN_KEYS }));
  made.append(fields);
  made.addEventListener("submit", (event) => {
    event.preventDefault();
    const chosen = state.choices ? made.querySelector("input:checked") : made.querySelector("input");
    commit(chosen ? chosen.value : "");
  });
  return made;
}

function answer(state) {
  const made = element("div", "", { class: state.right ? "gfl-answer gfl-right" : "gfl-answer" });
  made.append(element("p", `${state.right ? "✓ " : ""}${state.headline} You guessed ${state.guess}.`, { class: "gfl-headline" }));
  for (const words of [state.said, state.because]) if (words) made.append(element("p", words));
  return made;
}

function fill(root, live, state, name, commit) {
  const hadFocus = root.contains(document.activeElement);
  root.replaceChildren();
  if (state.final) root.append(element("p", `Predict. ${state.question}`, { class: "gfl-question" }));
  else root.append(form(state, name, commit));
  let said = state.trouble;
  if (state.reveals && state.final) root.append(answer(state));
  else if (!said && state.guess) said = `Your guess: ${state.guess}.${state.reveals ? "" : " Go on to see."}`;
  else if (!said && state.reveals) said = "The answer is computed. It is shown when you commit to a guess.";
  live.textContent = state.reveals && state.final ? `${state.headline} ${state.said}` : said;
  live.classList.toggle("gfl-hidden", state.reveals && state.final);
  root.append(live);
  if (hadFocus && !state.final) root.querySelector("input")?.focus();
}

function render({ model, el }) {
  const root = element("div", "", { class: "gfl-card" });
  const live = element("p", "", { class: "gfl-live", role: "status", "aria-live": "polite" });
  const name = `gfl-${(cards += 1)}`;
  const commit = (value) => {
    if (!value.trim()) {
      live.textContent = "Choose or type something first.";
      return;
    }
    model.set("guess", value);
    model.save_changes();
  };
  const draw = () => fill(root, live, model.get("state"), name, commit);
  root.addEventListener("keydown", (event) => event.stopPropagation());
  model.on("change:state", draw);
  draw();
  el.append(root);
  return () => model.off("change:state", draw);
}

export default { render };
