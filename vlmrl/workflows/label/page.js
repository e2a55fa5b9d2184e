"use strict";
// Asks for a comparison, shows it, sends what the person says, and shows the next one, which comes with the reply.

const WAIT = 5000; // milliseconds between looks for new questions while there are none
const KEYS = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "tie", "1": "left", "2": "right", "0": "tie",
               s: "abstain", u: "undo" };
const at = (id) => document.getElementById(id);
let rater = localStorage.getItem("rater") || "";
let question = null;
let since = 0;
let busy = false;
let timer = 0;

async function ask(path, body) {
  const options = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(path, options || {});
  const values = await response.json();
  if (!response.ok) {
    throw new Error(typeof values.detail === "string" ? values.detail : "The server did not take this answer.");
  }
  return values;
}

// One thing at a time: a key that is held down must not answer what has not been seen.
async function alone(work) {
  if (busy) return;
  busy = true;
  try {
    await work();
    at("problem").hidden = true;
  } catch (error) {
    at("problem").textContent = error.message;
    at("problem").hidden = false;
    if (error instanceof TypeError) later(); // no connection
  } finally {
    busy = false;
  }
}

function later() {
  clearTimeout(timer);
  timer = setTimeout(() => alone(next), WAIT);
}

async function next() {
  await show(await ask(`api/next?rater=${encodeURIComponent(rater)}`));
}

async function show(state) {
  question = state.question;
  at("work").hidden = question === null;
  at("done").hidden = question !== null;
  for (const chosen of document.querySelectorAll(".chosen")) chosen.classList.remove("chosen");
  const { done, left, total, settled } = state.progress;
  at("bar").max = Math.max(done + left, 1);
  at("bar").value = done;
  at("progress").textContent = `${done} answered by you, ${left} to go; ${settled} of ${total} settled`;
  if (at("report").open) await report();
  if (question === null) {
    at("goal").textContent = "\u00a0";
    later();
    return;
  }
  at("goal").textContent = question.goal;
  await Promise.all(["left", "right"].map(async (side) => {
    at(side).src = `clip/${question[side]}.png`;
    await at(side).decode();
  }));
  since = performance.now();
}

function say(verdict) {
  return alone(async () => {
    if (question === null) return;
    const clip = document.querySelector(`.clip[data-verdict="${verdict}"]`);
    if (clip) clip.classList.add("chosen");
    const seconds = (performance.now() - since) / 1000;
    await show(await ask("api/rate", { key: question.key, rater, verdict, seconds }));
  });
}

function undo() {
  return alone(async () => show(await ask("api/undo", { rater })));
}

async function report() {
  const { raters, pairs } = await ask("api/report");
  const share = (value) => (value === null ? "\u2013" : `${Math.round(100 * value)} %`);
  const number = (value) => (value === null ? "\u2013" : value.toFixed(2));
  fill(at("raters"), raters.map((one) => [one.rater, one.rated, one.gold ? `${one.gold_right} of ${one.gold}` : "\u2013"]));
  fill(at("pairs"), pairs.map((pair) => [pair.raters.join(", "), pair.n, share(pair.observed), number(pair.kappa)]));
}

function fill(body, rows) {
  body.replaceChildren(...rows.map((cells) => {
    const row = document.createElement("tr");
    row.append(...cells.map((cell) => Object.assign(document.createElement("td"), { textContent: cell })));
    return row;
  }));
}

function begin() {
  at("who").hidden = rater !== "";
  at("rename").hidden = rater === "";
  at("rename").textContent = `You are ${rater}. Somebody else?`;
  if (rater === "") {
    at("work").hidden = at("done").hidden = true;
    at("name").focus();
  } else {
    alone(next);
  }
}

at("who").addEventListener("submit", (event) => {
  event.preventDefault();
  rater = at("name").value.trim();
  localStorage.setItem("rater", rater);
  begin();
});
at("rename").addEventListener("click", () => {
  clearTimeout(timer);
  rater = "";
  localStorage.removeItem("rater");
  begin();
});
at("undo").addEventListener("click", undo);
at("report").addEventListener("toggle", () => at("report").open && alone(report));
for (const button of document.querySelectorAll("[data-verdict]")) {
  button.addEventListener("click", () => say(button.dataset.verdict));
}
document.addEventListener("keydown", (event) => {
  const meant = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!meant || rater === "" || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  if (meant === "undo") undo();
  else say(meant);
});
begin();
