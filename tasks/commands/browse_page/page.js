// Sends a problem, and shows what both models say while they say it. What they write is only ever text.
"use strict";

const at = (id) => document.getElementById(id);
const form = at("form"), problem = at("problem"), answer = at("answer"), message = at("message");
const models = [...document.querySelectorAll(".model")];
let drawn = null;  // the id of the test problem in the form, until somebody edits it
let asking = null;  // stops the request under way

function tell(text, isError = false) {
  message.textContent = text;
  message.classList.toggle("error", isError);
}

function setBusy(busy) {
  for (const id of ["ask", "draw"]) if (at(id)) at(id).disabled = busy;
  at("stop").hidden = !busy;
  for (const model of models) model.setAttribute("aria-busy", String(busy));
  if (!busy) for (const article of document.querySelectorAll(".writing")) article.classList.remove("writing");
}

function clear() {
  for (const article of document.querySelectorAll(".sample")) {
    article.querySelector(".text").replaceChildren();
    article.querySelector(".key").textContent = "";
    showVerdict(article, null);
  }
}

function showVerdict(article, right) {
  const verdict = article.querySelector(".verdict");
  verdict.className = right === null ? "verdict" : `verdict ${right ? "right" : "wrong"}`;
  verdict.textContent = right === null ? "" : right ? "✓ right" : "✗ wrong";
}

function showAttempt(article, attempt) {
  const text = attempt.pieces.map(([piece, changed]) => {
    if (!changed) return piece;
    const mark = document.createElement("mark");
    mark.textContent = piece;
    return mark;
  });
  article.querySelector(".text").replaceChildren(...text);
  const whole = attempt.pieces.map(([piece]) => piece).join("");
  const notes = [];
  if (attempt.read === null) notes.push("no answer found");
  else if (attempt.read !== whole) notes.push(`read as ${attempt.read}`);
  if (attempt.cut !== null) notes.push(`cut at its limit of ${attempt.cut} tokens`);
  article.querySelector(".key").textContent = notes.join("; ");
  article.classList.remove("writing");
  showVerdict(article, attempt.right);
}

function show(event) {
  if (event.error) return tell(event.error, true);
  const articles = [...models[event.model].querySelectorAll(".sample")];
  if (event.attempts) {
    event.attempts.forEach((attempt, number) => showAttempt(articles[number], attempt));
  } else {
    articles.forEach((article, number) => article.classList.toggle("writing", number === event.attempt - 1));
    articles[event.attempt - 1].querySelector(".text").append(event.piece);
  }
}

async function ask() {
  asking = new AbortController();
  clear();
  tell("Both models answer, one after the other.");
  setBusy(true);
  try {
    const asked = {id: drawn, problem: problem.value, answer: answer.value};
    const response = await fetch("ask", {
      method: "POST",
      headers: {"Content-Type": "application/json"},
      body: JSON.stringify(asked),
      signal: asking.signal,
    });
    if (!response.ok) return tell((await response.json()).error, true);
    tell("");
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const lines = (rest + part.value).split("\n");
      rest = lines.pop();
      for (const line of lines) show(JSON.parse(line));
    }
  } catch (error) {
    if (error.name === "AbortError") tell("Stopped.");
    else tell("The answer broke off; the terminal in which `make browse` runs says why.", true);
  } finally {
    setBusy(false);
  }
}

async function draw() {
  const found = await (await fetch("problem")).json();
  problem.value = found.problem;
  answer.value = found.answer;
  drawn = found.id;
  clear();
  tell(`Test problem ${found.id}`);
}

form.addEventListener("submit", (event) => { event.preventDefault(); ask(); });
problem.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
problem.addEventListener("input", () => { if (drawn !== null) answer.value = ""; drawn = null; });
answer.addEventListener("input", () => { drawn = null; });
at("stop").addEventListener("click", () => asking.abort());
if (at("draw")) at("draw").addEventListener("click", draw);
