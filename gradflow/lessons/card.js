// A prediction: a question, a way to commit to a guess, and the answer once there is one.
// The kernel tells in the trait `shown` what to show; the reader's guess is `state.guess`.

let cards = 0;

function render({ model, el }) {
  const page = openPage(model, el, { label: "Prediction" });
  const name = `gfl-${(cards += 1)}`;
  page.root.classList.add("gfl-card");
  const redraw = () => fill(page, model.get("shown"), name);
  page.on("change:shown", redraw);
  redraw();
  return page.close;
}

function fill(page, shown, name) {
  const hadFocus = page.root.contains(document.activeElement);
  const open = shown.final && shown.reveals;
  const question = make("p", { class: "gfl-question" }, `Predict. ${shown.question}`);
  page.root.replaceChildren(shown.final ? question : form(page, shown, name));
  if (open) page.root.append(answer(shown));
  page.root.append(page.live);
  page.live.classList.toggle("gfl-heard", open); // on the card already; only read out
  page.say(told(shown, open));
  if (hadFocus && !shown.final) page.root.querySelector("input:checked, input")?.focus();
}

function told(shown, open) {
  if (open) return `${shown.headline} ${shown.said}`;
  if (shown.trouble) return shown.trouble;
  if (shown.guess && (shown.reveals || shown.final)) return `Your guess: ${shown.guess}.`;
  if (shown.guess) return `Your guess: ${shown.guess}. Go on to see.`;
  return shown.reveals ? "The answer is computed. It is shown when you commit to a guess." : "";
}

function form(page, shown, name) {
  const fields = make("fieldset", {}, make("legend", {}, `Predict. ${shown.question}`));
  fields.append(shown.choices ? choices(shown, name) : numberField(shown));
  fields.append(make("button", { type: "submit" }, "Commit"));
  const made = make("form", {}, fields);
  made.addEventListener("submit", (event) => {
    event.preventDefault();
    const chosen = made.querySelector(shown.choices ? "input:checked" : "input");
    if (chosen?.value.trim()) page.choose({ guess: chosen.value });
    else page.say("Choose or type something first.");
  });
  return made;
}

function choices(shown, name) {
  const list = make("div", { class: "gfl-choices" });
  for (const choice of shown.choices) {
    const dot = make("input", { type: "radio", name, value: choice, checked: choice === shown.guess });
    list.append(make("label", {}, dot, make("span", {}, choice)));
  }
  return list;
}

function numberField(shown) {
  const field = make("input", { type: "text", inputmode: "decimal", autocomplete: "off", size: "10" });
  return make("label", {}, "Your guess", field, shown.unit ? make("span", {}, shown.unit) : null);
}

function answer(shown) {
  const head = `${shown.right ? "✓ " : ""}${shown.headline} You guessed ${shown.guess}.`;
  const made = make("div", { class: shown.right ? "gfl-answer gfl-right" : "gfl-answer" });
  made.append(make("p", { class: "gfl-question" }, head));
  for (const words of [shown.said, shown.because]) if (words) made.append(make("p", {}, words));
  if (!shown.right) made.append(make("p", { class: "gfl-gap" }, "Before you go on: what made the difference? One sentence."));
  return made;
}

export default { render };
