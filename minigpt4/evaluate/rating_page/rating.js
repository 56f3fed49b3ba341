"use strict";
// One answer at a time. What is decided is on the server's disk before the page goes on.
const at = (id) => document.getElementById(id);
let ratings = [], place = 0, about = null, busy = false, begun = 0;

async function get(path) {
  const reply = await fetch(path);
  if (!reply.ok) throw new Error((await reply.json()).detail || reply.statusText);
  return reply.json();
}

// What is pressed while the page is busy is not taken: it would be about an answer that nobody has seen yet.
function working(on) {
  busy = on;
  document.body.setAttribute("aria-busy", String(on));
}

function told(text) { at("saved").textContent = text; }

function count() {
  const done = ratings.filter(Boolean).length;
  at("bar").max = ratings.length || 1;
  at("bar").value = done;
  at("count").textContent = `${done} of ${ratings.length} rated, this is ${place + 1}`;
  for (const button of document.querySelectorAll("nav button")) {
    const mine = { y: "yes", n: "no" }[button.dataset.key];
    if (mine) button.setAttribute("aria-pressed", String(ratings[place] === mine));
  }
}

async function show(next) {
  place = Math.max(0, Math.min(ratings.length - 1, next));
  const item = await get(`api/items/${place}`);
  about = item.about;  // what a rating is of: the server's answers may be others by the time it gets there
  at("image").src = `api/images/${place}`;
  at("prompt").textContent = item.prompt;
  at("answer").textContent = item.answer || "(nothing)";
  count();
}

async function begin() {
  const mine = ++begun;
  working(true);
  try {
    const state = await get(`api/state?rater=${encodeURIComponent(at("rater").value)}`);
    if (mine !== begun) return; // somebody else rates by now
    ratings = state.ratings;
    at("folder").textContent = state.folder;
    const open = ratings.findIndex((rating) => !rating);
    await show(open < 0 ? 0 : open);
  } finally {
    if (mine === begun) working(false);
  }
}

async function rate(rating) {
  if (!at("rater").value.trim()) { told("first say who you are"); at("rater").focus(); return; }
  const headers = { "Content-Type": "application/json", "X-Rating": "1" };
  const body = JSON.stringify({ index: place, about, rater: at("rater").value, rating });
  const mine = begun;
  const reply = await fetch("api/ratings", { method: "POST", headers, body });
  if (!reply.ok) { told(`not saved: ${(await reply.json()).error}`); return; }
  if (mine !== begun) return;
  ratings[place] = rating;
  told("saved");
  await show(place + 1);
}

async function act(key) {
  if (busy) return;
  const mine = begun;
  working(true);
  try {
    if (key === "y") await rate("yes");
    else if (key === "n") await rate("no");
    else if (key === "ArrowLeft") await show(place - 1);
    else if (key === "ArrowRight") await show(place + 1);
  } catch (error) {
    told(`the server does not answer: ${error.message}`);
  }
  if (mine === begun) working(false);
}

document.addEventListener("keydown", (event) => {
  if (event.target === at("rater") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (["y", "n", "ArrowLeft", "ArrowRight"].includes(event.key)) { event.preventDefault(); act(event.key); }
});
for (const button of document.querySelectorAll("nav button")) button.addEventListener("click", () => act(button.dataset.key));
at("rater").addEventListener("keydown", (event) => { if (event.key === "Enter") event.target.blur(); });
at("rater").addEventListener("change", () => {
  history.replaceState(null, "", `?rater=${encodeURIComponent(at("rater").value)}`);  // so that a reload knows who it is
  begin().catch((error) => told(error.message));
});
at("rater").value = new URLSearchParams(location.search).get("rater") || "";
begin().catch((error) => told(error.message));
