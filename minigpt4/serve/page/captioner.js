// ChatCaptioner: the model asks itself about the photo, round by round, and sums up what it was told.

import * as api from "/api.js";
import { $, takeFocus } from "/controls.js";
import { make } from "/messages.js";

const WHY = {
  "rounds": "as many rounds as were allowed",
  "nothing new": "the last rounds brought nothing new",
  "no question": "there was no question left",
  "cost ceiling": "no more may be spent",
};
let running = null;
let shown = () => ({});

export function begin(what) {
  shown = what;
  if (!$("rounds").children.length) empty();
}

// Another conversation is shown: these rounds were about a photo of the one before.
export function clear() {
  running?.abort();
  running = null;
  busy(false);
  empty();
  note("");
}

function empty() {
  $("rounds").replaceChildren(make("li", { class: "empty" }, make("strong", {}, "A caption by dialogue"), make("span", {}, "The model asks questions about the photo and answers them itself; in the end it sums up what it has learnt. A small model asks small questions.")));
}

function note(text, bad = false) {
  $("captioner-note").textContent = text;
  $("captioner-note").classList.toggle("bad", bad);
}

function say(kind, text) {
  const list = $("rounds");
  if (kind === "problem") return note(text, true);
  const item = kind === "caption"
    ? make("li", { class: "message summary" }, make("b", {}, "Summary"), text)
    : make("li", { class: `message ${kind === "question" ? "user" : "assistant"}`, "data-kind": kind }, make("div", { class: "bubble" }, text));
  list.append(item);
  list.scrollTop = list.scrollHeight;
}

async function start() {
  const { model, image } = shown();
  if (!image) return note("this needs a photo: drop one, or choose one", true);
  if (!$("most-rounds").checkValidity()) return note("rounds must be a whole number from 1 to 30", true);
  const mine = (running = new AbortController());
  $("rounds").replaceChildren();
  busy(true);
  takeFocus($("stop-dialogue"));
  note("asking …");
  try {
    for await (const event of api.dialogue({ model, image_url: image.url, rounds: Number($("most-rounds").value) }, mine.signal)) {
      if (running !== mine) return;
      if (event.type === "done") note(`ended: ${WHY[event.stopped] ?? event.stopped}`);
      else say(event.type, event.text);
    }
  } catch (error) {
    if (running !== mine) return; // cleared meanwhile
    if (error.name === "AbortError") note("stopped");
    else note(error.message, true);
    if (!$("rounds").children.length) empty();
  }
  running = null;
  busy(false);
  takeFocus($("start"));
}

function busy(on) {
  $("start").hidden = on;
  $("stop-dialogue").hidden = !on;
}

$("captioner-form").addEventListener("submit", (e) => { e.preventDefault(); if (!running) start(); });
$("stop-dialogue").addEventListener("click", () => running?.abort());
