// Asks without leaving the page, one model after the other, and remembers the answers in this tab. Every answer is
// shown as the server rendered it, so that there is one template and one place that escapes; all else goes in as text.
"use strict";

const REMEMBERED = 30;
const STORE = "asked";
const TEXTS = ".correction [name=context]";
const form = document.querySelector("form");
const fault = document.getElementById("fault");
const status_ = document.getElementById("status");
const results = document.getElementById("results");
const history_ = document.getElementById("history");
let current = null;

function showScripted(within) {
  within.querySelectorAll(".scripted").forEach((element) => { element.hidden = false; });
  // Keys mark nothing in a text area that is readonly; what would change it is refused below.
  within.querySelectorAll(TEXTS).forEach((area) => {
    area.readOnly = false;
    area.inputMode = "none";
    area.setAttribute("aria-readonly", "true");
  });
}

showScripted(document);

function fields() {
  const data = new FormData(form);
  return {
    question: data.get("question"),
    context: data.get("context"),
    truth: data.get("truth"),
    unanswerable: data.has("unanswerable"),
    models: data.getAll("models"),
    max_error: data.get("max_error"),
  };
}

function fill(values) {
  for (const name of ["question", "context", "truth", "max_error"]) form.elements[name].value = values[name] ?? "";
  form.elements.unanswerable.checked = Boolean(values.unanswerable);
  blame(null);
}

function blame(message, field) {
  fault.hidden = message === null;
  fault.textContent = message ?? "";
  form.querySelectorAll("[aria-invalid]").forEach((element) => {
    element.removeAttribute("aria-invalid");
    element.removeAttribute("aria-describedby");
  });
  if (message === null) return;
  const box = document.querySelector("input[name=models]");
  const at = field === "models" ? box?.closest("fieldset") : field && form.elements[field];
  at?.setAttribute("aria-invalid", "true");
  at?.setAttribute("aria-describedby", "fault");
  (field === "models" ? box : at)?.focus();
  fault.scrollIntoView({ block: "nearest" });
}

async function ask(asked, model, signal) {
  const response = await fetch("/answer", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...asked, models: [model] }),
    signal,
  });
  const answered = await response.json();
  if (!response.ok) throw Object.assign(new Error(answered.error), { field: answered.field, refused: true });
  return answered.results[0];
}

function rendered(html) {
  const card = new DOMParser().parseFromString(html, "text/html").querySelector("article");
  showScripted(card);
  return card;
}

function showPlace(card) {
  const context = card.querySelector(".context");
  const mark = context?.querySelector("mark");
  if (!mark) return;
  const above = mark.getBoundingClientRect().top - context.getBoundingClientRect().top;
  context.scrollTop = above - context.clientHeight / 3;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  current?.abort();
  const mine = (current = new AbortController());
  const asked = fields();
  blame(null);
  if (!asked.models.length) return blame("Choose a model.", "models");
  const cards = results.querySelector(".cards");
  const answers = [];
  try {
    for (const [i, model] of asked.models.entries()) {
      if (i === 0) {
        results.querySelector("h2").textContent = asked.question;
        cards.replaceChildren(...asked.models.map((uri) =>
          document.querySelector(`template[data-waiting="${CSS.escape(uri)}"]`).content.cloneNode(true)));
        results.hidden = false;
      }
      status_.textContent = `Asking model ${i + 1} of ${asked.models.length}`;
      const answered = await ask(asked, model, mine.signal);
      const card = rendered(answered.html);
      cards.querySelector(`[data-uri="${CSS.escape(model)}"]`).replaceWith(card);
      showPlace(card);
      answers.push(answered);
    }
    status_.textContent = answers.map((answered) => `${title(answered.uri)}: ${answered.error ?? inWords(answered)}`).join(". ");
    remember(asked, answers);
    if (results.getBoundingClientRect().top > innerHeight / 2) results.scrollIntoView({ block: "start" });
  } catch (error) {
    // Another question took this one's place.
    if (mine.signal.aborted) return;
    status_.textContent = "";
    cards.querySelectorAll(".waiting").forEach((card) => card.remove());
    results.hidden = !cards.children.length;
    blame(error.refused ? error.message : "The page's program does not answer: was it stopped?", error.field);
  }
});

document.addEventListener("keydown", (event) => {
  const written = event.target.closest?.("form");
  if (written && event.key === "Enter" && (event.ctrlKey || event.metaKey)) written.requestSubmit();
});

// What was marked in the text of a correction, by its form. The server counts characters, JavaScript UTF-16 units.
const marks = new WeakMap();
const characters = (text) => [...text].length;

document.addEventListener("beforeinput", (event) => {
  if (event.target.matches(TEXTS)) event.preventDefault();
});

document.addEventListener("selectionchange", () => {
  const area = document.activeElement;
  if (!area?.matches(TEXTS)) return;
  const marked = area.value.slice(area.selectionStart, area.selectionEnd);
  const text = marked.trim();
  if (!text) return;
  const start = characters(area.value.slice(0, area.selectionStart + marked.indexOf(text)));
  marks.set(area.form, { text, start, end: start + characters(text) });
  area.form.elements.answer.value = text;
});

results.addEventListener("submit", async (event) => {
  event.preventDefault();
  const correction = event.target;
  const { question, context, seal, answer } = correction.elements;
  const mark = marks.get(correction);
  const text = answer.value.trim();
  const right = event.submitter?.name === "unanswerable" ? { unanswerable: true }
    : mark?.text === text ? { answer: text, start: mark.start, end: mark.end } : { answer: text };
  const told = correction.querySelector(".told");
  const buttons = correction.querySelectorAll("button");
  const tell = (message, failed) => {
    told.classList.toggle("fault", failed);
    told.textContent = message;
    answer.setAttribute("aria-invalid", failed);
    told.scrollIntoView({ block: "nearest" });
  };
  buttons.forEach((button) => { button.disabled = true; });
  try {
    const response = await fetch("/correction", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ question: question.value, context: context.defaultValue, seal: seal.value, ...right }),
    });
    const done = await response.json();
    tell(response.ok ? `Saved: ${done.saved}` : done.error, !response.ok);
  } catch {
    tell("The page's program does not answer: was it stopped?", true);
  }
  buttons.forEach((button) => { button.disabled = false; });
  event.submitter?.focus();
});

document.querySelectorAll("[data-example]").forEach((link) => link.addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  fill(JSON.parse(link.dataset.example));
  form.elements.question.focus();
}));

function inWords(answered) {
  return answered.abstained ? "abstained" : answered.answer || "no answer";
}

function title(uri) {
  const box = [...form.querySelectorAll("input[name=models]")].find((input) => input.value === uri);
  return box ? box.parentElement.textContent.trim().replace(/\s+/g, " ") : uri;
}

function remembered() {
  try {
    return JSON.parse(sessionStorage.getItem(STORE)) ?? [];
  } catch {
    return [];
  }
}

function remember(asked, answered) {
  const answers = answered.filter((one) => !one.error).map(({ uri, answer, abstained, score, exact_match, f1, seconds }) =>
    ({ uri, title: title(uri), answer, abstained, score, exact_match, f1, seconds }));
  if (!answers.length) return;
  let kept = [{ asked, answers }, ...remembered()].slice(0, REMEMBERED);
  // A tab may keep a few megabytes: long contexts push the oldest out.
  while (kept.length) {
    try {
      sessionStorage.setItem(STORE, JSON.stringify(kept));
      break;
    } catch {
      kept = kept.slice(0, -1);
    }
  }
  showHistory();
}

function element(name, text, more = {}) {
  return Object.assign(document.createElement(name), { textContent: text, ...more });
}

function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function showHistory() {
  const kept = remembered();
  history_.hidden = !kept.length;
  const models = new Map();
  for (const answer of kept.flatMap((entry) => entry.answers)) {
    if (!models.has(answer.uri)) models.set(answer.uri, []);
    models.get(answer.uri).push(answer);
  }
  history_.querySelector("tbody").replaceChildren(...[...models.values()].map((answers) => {
    const scored = answers.filter((answer) => answer.f1 !== undefined);
    const percent = (name) => (scored.length ? (100 * mean(scored.map((answer) => answer[name]))).toFixed(1) : "–");
    const row = element("tr", "");
    const latency = `${(1000 * mean(answers.map((answer) => answer.seconds))).toFixed(0)} ms`;
    const cells = [`${scored.length} of ${answers.length}`, percent("exact_match"), percent("f1"), latency];
    row.append(element("th", answers[0].title, { scope: "row" }), ...cells.map((cell) => element("td", cell)));
    return row;
  }));
  history_.querySelector("ol").replaceChildren(...kept.map(({ asked, answers }) => {
    const again = element("button", asked.question, { type: "button", className: "again", dir: "auto" });
    again.addEventListener("click", () => {
      fill(asked);
      form.querySelectorAll("input[name=models]").forEach((box) => { box.checked = asked.models.includes(box.value); });
      form.elements.question.focus();
    });
    const lines = element("ul", "");
    lines.append(...answers.map((answer) => {
      const line = element("li", "");
      const score = answer.f1 === undefined ? `${(100 * answer.score).toFixed(1)}%` : `F1 ${(100 * answer.f1).toFixed(0)}`;
      line.append(
        element("span", answer.title, { className: "quiet" }),
        answer.answer ? element("span", answer.answer, { dir: "auto" }) : element("i", answer.abstained ? "Abstained" : "No answer"),
        element("span", score),
      );
      return line;
    }));
    const item = element("li", "");
    item.append(again, lines);
    return item;
  }));
}

document.getElementById("clear").addEventListener("click", () => {
  sessionStorage.removeItem(STORE);
  showHistory();
  form.elements.question.focus();
});

showHistory();
document.querySelectorAll(".card").forEach(showPlace);
