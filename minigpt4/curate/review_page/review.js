"use strict";
// One item is on the page; the next few are fetched ahead. Decisions show at once and are saved in the background, in order.
const $ = (id) => document.getElementById(id);
const AHEAD = 3;
const LETTERS = { accept: "a", edit: "e", reject: "r", ignore: "i" };
const KEYS = { a: "accept", r: "reject", i: "ignore", u: "undo" };
let reviewer = new URLSearchParams(location.search).get("reviewer") || sessionStorage.getItem("reviewer") || "reviewer";
let codes = [], at = 0, shown = null;
const items = new Map();   // index -> promise of an item
const history = [];        // what was decided here, the last one last: what undo goes back to
const queue = [];          // decisions that are not saved yet

async function get(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${answer.status}`);
  return answer.json();
}

function item(index) {
  if (!items.has(index)) {
    const promise = get(`api/items/${index}?reviewer=${encodeURIComponent(reviewer)}`);
    promise.catch(() => items.delete(index));
    items.set(index, promise);
    if (items.size > 50) items.delete(items.keys().next().value);
  }
  return items.get(index);
}

function pieces(place, parts) {
  place.replaceChildren(...parts.map(([kind, text]) => {
    const element = document.createElement({ gone: "del", new: "ins", same: "span" }[kind]);
    element.textContent = text + " ";
    return element;
  }));
}

async function show(index) {
  at = Math.max(0, Math.min(index, codes.length - 1));
  const wanted = at;
  sessionStorage.setItem("at", at);
  $("editing").hidden = true;
  let one;
  try { one = await item(wanted); } catch (error) { status("failed", "cannot be loaded: is the server still running?"); return; }
  if (wanted !== at) return;  // the reader has gone on
  shown = one;
  $("image").src = `api/images/${at}`;
  $("caption").textContent = one.caption ? `Source: ${one.caption}` : "";
  $("raw").textContent = one.raw;
  pieces($("continued"), one.continued);
  pieces($("repaired"), one.repaired);
  $("repairs").textContent = one.repairs.length ? `(${one.repairs.join(", ")})` : "";
  $("flaws").replaceChildren(...one.flaws.map((flaw) => {
    const line = document.createElement("li");
    line.textContent = `${flaw.rule}: ${flaw.says} "${flaw.evidence}"`;
    return line;
  }));
  const others = Object.entries(one.others).map(([name, action]) => `${name}: ${action}`);
  $("others").textContent = others.length ? `Others: ${others.join(", ")}` : "";
  decided(one);
  for (let next = at + 1; next <= Math.min(at + AHEAD, codes.length - 1); next++) {
    item(next).catch(() => {});
    new Image().src = `api/images/${next}`;
  }
}

function decided(one) {
  const label = document.createElement("span");
  label.className = `decision ${one.mine ? one.mine.action : ""}`;
  label.textContent = one.mine ? one.mine.action : "undecided";
  $("about").replaceChildren(`${at + 1} of ${codes.length.toLocaleString("en")} · ${one.id} · `, label);
  $("mine").hidden = !(one.mine && one.mine.text);
  $("own").textContent = one.mine && one.mine.text ? one.mine.text : "";
  const done = codes.filter((code) => code !== ".").length;
  $("bar").max = codes.length;
  $("bar").value = done;
  $("count").textContent = `${done.toLocaleString("en")} of ${codes.length.toLocaleString("en")} decided`;
}

function status(kind, text) { $("saved").className = kind; $("saved").textContent = text; }

let sending = false;
async function send() {
  if (sending) return;
  sending = true;
  while (queue.length) {
    status("waiting", `saving ${queue.length}`);
    const decision = queue[0];
    try {
      const answer = await fetch("api/decisions", {
        method: "POST", headers: { "content-type": "application/json", "x-review": "1" }, body: JSON.stringify(decision), keepalive: true,
      });
      if (answer.ok || answer.status === 400 || answer.status === 409) {
        queue.shift();
        const said = await answer.json();
        if (!answer.ok) { await refused(decision, said.error); continue; }
        codes[decision.index] = said.mine ? LETTERS[said.mine.action] : ".";
        if (items.has(decision.index)) (await item(decision.index)).mine = said.mine;
        if (decision.index === at && shown && shown.index === at) decided(shown);
        continue;
      }
    } catch (error) { /* the server is away: the decision waits */ }
    status("failed", `${queue.length} not saved yet; trying again`);
    await new Promise((wake) => setTimeout(wake, 1000));
  }
  if (refusals) status("failed", `saved, but ${refusals} not taken: ${refusal}`); else status("", "saved");
  sending = false;
}

let refusals = 0, refusal = "";  // stay to be read until the page is loaded again
async function refused(decision, why) {
  refusals += 1;
  refusal = why;
  items.delete(decision.index);  // what stands there is the server's to say
  const one = await item(decision.index).catch(() => null);
  codes[decision.index] = one && one.mine ? LETTERS[one.mine.action] : ".";
  if (one && decision.index === at) { shown = one; decided(one); } else if (shown) decided(shown);
}

function decide(action, text) {
  // A decision says what it is about: the server's texts may be others by the time it gets there.
  let one = shown && shown.index === at ? { index: at, id: shown.id, about: shown.about } : null;
  if (action === "undo") {
    if (history.length) one = history.pop();
    else if (codes[at] === ".") return;
  }
  if (!one) return;  // nobody has seen it yet
  const { index } = one;
  if (action !== "undo") {
    history.push(one);
    codes[index] = LETTERS[action];
    shown.mine = { action, text: text || null };
    decided(shown);
  }
  queue.push(text === undefined ? { ...one, reviewer, action } : { ...one, reviewer, action, text });
  send();
  if (action === "undo") { items.delete(index); saved().then(() => show(index)); } else show(index + 1);
}

async function saved() { while (queue.length) await new Promise((wake) => setTimeout(wake, 10)); }

function nextUndecided() {
  for (let step = 1; step <= codes.length; step++) {
    const index = (at + step) % codes.length;
    if (codes[index] === ".") return show(index);
  }
  status("", "all decided");
}

function edit() {
  if (!shown || shown.index !== at) return;
  $("text").value = (shown.mine && shown.mine.text) || shown.text;
  $("editing").hidden = false;
  $("text").focus();
}

function act(key) {
  if (KEYS[key]) decide(KEYS[key]);
  else if (key === "e") edit();
  else if (key === "n") nextUndecided();
  else if (key === "ArrowLeft") show(at - 1);
  else if (key === "ArrowRight") show(at + 1);
  else return false;
  return true;
}

function keep(event) {
  if (event) event.preventDefault();
  const text = $("text").value.trim();
  $("editing").hidden = true;
  $("text").blur();
  if (text) decide("edit", text);
}

document.addEventListener("keydown", (event) => {
  if (event.target === $("text")) {
    if (event.key === "Escape") { $("editing").hidden = true; $("text").blur(); }
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) keep(event);
    return;
  }
  if (event.target.tagName === "INPUT") { if (event.key === "Enter") event.target.blur(); return; }
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (act(event.key.length === 1 ? event.key.toLowerCase() : event.key)) event.preventDefault();
});
document.querySelector("nav").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) act(button.dataset.key);
});
$("editing").addEventListener("submit", keep);
$("leave").addEventListener("click", () => { $("editing").hidden = true; });
$("place").addEventListener("change", () => { const number = parseInt($("place").value, 10); if (number) show(number - 1); $("place").value = ""; });
$("reviewer").addEventListener("change", async () => { await saved(); reviewer = $("reviewer").value.trim() || "reviewer"; window.history.replaceState(null, "", `?reviewer=${encodeURIComponent(reviewer)}`); begin(); });
window.addEventListener("beforeunload", (event) => { if (queue.length) event.preventDefault(); });

async function begin() {
  sessionStorage.setItem("reviewer", reviewer);
  $("reviewer").value = reviewer;
  items.clear();
  history.length = 0;
  const state = await get(`api/state?reviewer=${encodeURIComponent(reviewer)}`);
  codes = [...state.codes];
  $("folder").textContent = state.folder;
  document.title = `Review of ${state.folder}`;
  const before = parseInt(sessionStorage.getItem("at") || "-1", 10);
  const open = codes.indexOf(".");
  show(before >= 0 && before < codes.length ? before : Math.max(open, 0));
}
begin();
