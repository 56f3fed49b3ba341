// The page: conversations, questions, answers.

import * as api from "/api.js";
import { prompt, refusal, request, sent, toSend } from "/asking.js";
import { $, POINTING, TASKS, choose, chosenTask, copy, grow, note, receive, takeFocus, theme, toggle } from "/controls.js";
import { bare, fill, make, siteFrame, tied, time, website } from "/messages.js";
import { blobOf, camera, read } from "/photos.js";
import * as stage from "/stage.js";
import * as store from "/store.js";
import { UNNAMED, add, branch, follow, fresh, id, leaf, path, siblings } from "/tree.js";

let model = { id: "", tasks: [] };
let now = fresh();
let running = null; // {controller, node, conversation}
let captioner = null; // its module, once its tab has been opened
let waiting = null; // a question that waits for its photos
const edits = new Map(); // forms of questions that are being edited, by the question's id
const readings = new Map(); // photos that are being read, with the conversation that they are for

async function keep(conversation = now) {
  await store.save(conversation).catch(() => note("this browser has no room left: export what you want to keep", true));
  listConversations();
}

// asking -----------------------------------------------------------------------------------------------------------------

// Whether all photos that were chosen here are there; a question waits for them, until another conversation is opened.
async function photosRead() {
  const mine = [...readings].filter(([, conversation]) => conversation === now).map(([reading]) => reading);
  if (!mine.length) return true;
  if (waiting) return false;
  const token = (waiting = {});
  note("the photo is being read; the question goes off with it …");
  const read = await Promise.all(mine);
  if (waiting !== token) return false;
  waiting = null;
  return read.every(Boolean) && photosRead();
}

async function send() {
  if (running || !(await photosRead()) || running) return;
  const last = now.nodes[now.head];
  if (last?.writing && Date.now() - now.changed < 5000) return note("another tab is being answered here; wait for it", true);
  const task = chosenTask();
  const text = $("question").value.trim();
  const box = stage.box() && stage.boxText(stage.box());
  const refused = refusal(now, { task, text, box });
  if (refused) return note(refused, true);
  const images = toSend(now, box || task);
  const node = add(now, { role: "user", text, task, box, images, prompt: prompt(model, task, text, box) }, now.head);
  if (now.title === UNNAMED) now.title = text || `${TASKS.find((t) => t.id === task).name}${now.images.at(-1)?.name ? `: ${now.images.at(-1).name}` : ""}`;
  $("question").value = "";
  grow();
  stage.setBox(null);
  await answer(node);
}

// What another tab has deleted while it was shown here goes on as a conversation of its own.
function goOn() {
  if (!store.gone(now)) return;
  now.id = id();
  localStorage.setItem("open", now.id);
}

async function answer(question, sampled = false) {
  const conversation = now;
  goOn();
  const node = add(conversation, { role: "assistant", text: "", boxes: [], writing: true }, question.id);
  running = { controller: new AbortController(), node, conversation };
  busy(true);
  render();
  note("");
  await keep(conversation);
  let saved = performance.now();
  try {
    const outcome = await api.ask(request(model, conversation, question, sampled), running.controller.signal, (text) => {
      node.text = text;
      showText(node);
      if (performance.now() - saved > 700) {
        saved = performance.now();
        store.save(conversation).catch(() => {}); // a reload in the middle finds what there was
      }
    });
    const images = sent(conversation, question.id); // the server counts those of the request
    Object.assign(node, outcome, { boxes: outcome.boxes?.map((b) => ({ ...b, image: images[b.image] })) });
  } catch (error) {
    if (error.name === "AbortError") node.finish = "stopped";
    else node.error = error.message;
  }
  node.writing = false;
  running = null;
  busy(false);
  await keep(conversation);
  if (now === conversation) render();
  takeFocus($("question"));
}

function busy(on) {
  $("send").hidden = on;
  $("stop").hidden = !on;
}

// showing ----------------------------------------------------------------------------------------------------------------

function render() {
  const messages = path(now);
  stage.show(now.images[now.shown]);
  renderThumbs();
  const list = $("messages");
  const typed = document.activeElement?.closest(".edit") ? document.activeElement : null;
  list.replaceChildren(...messages.map(renderMessage));
  if (!messages.length) {
    list.append(make("li", { class: "empty" }, make("strong", {}, "What would you like to know?"), make("span", {}, "Show a photo and ask. Draw a box on it to ask about a part. Places in an answer light up as you point at them.")));
  }
  const last = messages.findLast((n) => n.role === "assistant" && n.boxes?.length && n.boxes[0].image === now.shown);
  stage.drawBoxes(last?.boxes ?? []);
  if (typed?.isConnected) typed.focus(); // who types into a form goes on there
  else list.scrollTop = list.scrollHeight;
}

function renderMessage(node) {
  const item = make("li", { class: `message ${node.role}`, "data-id": node.id });
  if (edits.has(node.id)) {
    item.append(edits.get(node.id));
    return item;
  }
  if (node.role === "user") {
    if (node.images?.length) item.append(make("div", { class: "pics" }, ...node.images.map((i) => make("img", { src: now.images[i].url, alt: now.images[i].name || "photo" }))));
    const info = TASKS.find((t) => t.id === node.task);
    const box = node.box ? ` the part ${node.box.replace(/[{}<]/g, "").replace(/>/g, " ").trim().split(" ").join(", ")}` : "";
    item.append(make("div", { class: "bubble" }, node.task ? make("span", { class: "what" }, info?.name ?? node.task) : null, (node.text + box).trim() || "this photo"));
  } else {
    const bubble = make("div", { class: `bubble${node.writing ? " writing" : ""}` });
    item.append(bubble);
    fill(bubble, node, () => point(node));
    const phrases = [...new Set((node.boxes ?? []).map((b) => b.phrase))];
    const counts = phrases.map((phrase) => node.boxes.filter((b) => b.phrase === phrase).length);
    const unsaid = phrases.filter((phrase, index) => counts[index] > 1 || !bubble.querySelector(`[data-phrase="${index}"]`));
    if (unsaid.length) { // the others are marked among the words
      item.append(make("div", { class: "chips" }, ...unsaid.map((phrase) => {
        const index = phrases.indexOf(phrase);
        const chip = make("button", { class: "chip", type: "button", onclick: () => point(node) }, `${phrase || "here"}${counts[index] > 1 ? ` × ${counts[index]}` : ""}`);
        return tied(chip, index);
      })));
    }
    const html = !node.writing && website(node.text);
    if (html) item.append(siteFrame(html));
  }
  item.append(foot(node));
  return item;
}

function showText(node) {
  const bubble = document.querySelector(`[data-id="${node.id}"] .bubble`);
  if (!bubble) return;
  fill(bubble, node, () => point(node));
  const list = $("messages");
  if (list.scrollHeight - list.scrollTop - list.clientHeight < 120) list.scrollTop = list.scrollHeight;
}

function foot(node) {
  const foot = make("div", { class: "foot" });
  const others = siblings(now, node);
  if (others.length > 1) {
    const place = others.indexOf(node.id);
    const go = (to) => () => { now.head = leaf(now, others[to]); keep(); render(); };
    foot.append(
      make("button", { onclick: go(place - 1), disabled: place === 0 || !!running, "aria-label": "The version before" }, "‹"),
      make("span", {}, `${place + 1} / ${others.length}`),
      make("button", { onclick: go(place + 1), disabled: place === others.length - 1 || !!running, "aria-label": "The next version" }, "›"),
    );
  }
  if (node.writing) return foot;
  const can = (name, work, title) => foot.append(make("button", { onclick: work, title, disabled: !!running }, name));
  if (node.role === "user") can("Edit", () => edit(node), "Ask it differently; the old question stays");
  else {
    can("Again", () => { now.head = node.parent; answer(now.nodes[node.parent], true); }, "Another answer, sampled; this one stays");
    can("Branch", () => { open(branch(now, node)); keep(); }, "Go on from here in a new conversation");
    can("Copy", () => copy(bare(node.text)));
    if (POINTING.includes(now.nodes[node.parent]?.task) && !node.boxes?.length && !node.error && node.finish !== "stopped") {
      foot.append(make("span", { class: "nowhere" }, "it names no place in the photo"));
    }
    if (node.finish === "length") foot.append(make("span", {}, "cut at its longest"));
    foot.append(make("span", { class: "time" }, time(node.timings)));
  }
  return foot;
}

function point(node) {
  now.shown = node.boxes[0]?.image ?? now.shown;
  stage.show(now.images[now.shown]);
  stage.drawBoxes(node.boxes);
  renderThumbs();
}

function edit(node) {
  const area = make("textarea", { rows: 3, "aria-label": "The question" });
  area.value = node.text;
  const close = () => {
    edits.delete(node.id);
    render();
    catchUp();
  };
  const save = () => {
    if (running) return note("an answer is being written: wait for it, or stop it", true);
    const text = area.value.trim();
    const refused = refusal(now, { ...node, text });
    if (refused) return note(refused, true);
    edits.delete(node.id);
    answer(add(now, { role: "user", text, task: node.task, box: node.box, images: node.images, prompt: prompt(model, node.task, text, node.box) }, node.parent));
  };
  area.addEventListener("keydown", (e) => {
    if (e.key === "Enter" && !e.shiftKey && !e.isComposing) { e.preventDefault(); save(); }
    if (e.key === "Escape") { e.stopPropagation(); close(); } // it stops no answer
  });
  edits.set(node.id, make("div", { class: "edit" }, area, make("div", { class: "row" }, make("button", { class: "primary", onclick: save }, "Ask"), make("button", { onclick: close }, "Cancel"))));
  render();
  area.focus();
}

function renderThumbs() {
  $("thumbs").replaceChildren(...now.images.map((image, i) => make("li", {}, make("button", {
    "aria-label": `Photo ${i + 1}`, "aria-current": i === now.shown ? "true" : "false",
    onclick: () => { now.shown = i; render(); },
  }, make("img", { src: image.url, alt: "" })))));
  $("thumbs").hidden = now.images.length < 2;
}

async function listConversations() {
  const found = await store.all();
  $("conversations").replaceChildren(...found.map((c) => make("li", { class: c.id === now.id ? "here" : "" },
    make("button", { class: "open", "aria-current": c.id === now.id ? "true" : "false", onclick: () => open(c) }, c.title),
    make("button", { class: "gone", "aria-label": `Delete ${c.title}`, onclick: () => forget(c) }, "×"))));
}

// An answer that nobody is writing any more, after a reload in the middle.
function settle(conversation) {
  for (const node of Object.values(conversation.nodes)) {
    if (node.writing && node !== running?.node) Object.assign(node, { writing: false, finish: "stopped" });
  }
}

function open(conversation) {
  const busy = [running?.conversation, ...readings.values()].find((c) => c?.id === conversation.id);
  conversation = busy ?? conversation; // not another copy of it
  if (conversation.id !== now.id) captioner?.clear();
  now = conversation;
  waiting = null;
  stage.setBox(null);
  try {
    settle(now);
    render();
  } catch (error) { // kept by an earlier version, which took in damaged files
    console.warn(error);
    now = fresh();
    render();
    note(`“${conversation.title}” is damaged and cannot be shown`, true);
  }
  localStorage.setItem("open", now.id);
  listConversations();
  $("list").classList.remove("shown");
  $("toggle-list").setAttribute("aria-expanded", "false");
}

// What another tab has saved meanwhile; an answer that is being written here does so itself whenever it is kept.
async function catchUp() {
  if (running || path(now).some((node) => edits.has(node.id))) return; // when the form is closed
  const conversation = now;
  const other = await store.get(conversation.id);
  if (!other || now !== conversation) return;
  follow(conversation, other);
  render();
}

async function forget(conversation) {
  if (running?.conversation.id === conversation.id) running.controller.abort();
  await store.remove(conversation.id);
  if (conversation.id === now.id) open(fresh());
  listConversations();
}

// photos -----------------------------------------------------------------------------------------------------------------

async function take(files) {
  const reading = readInto(now, files);
  readings.set(reading, now);
  await reading.finally(() => readings.delete(reading));
}

// Whether all of them could be read; the conversation need not be shown any more when they are.
async function readInto(conversation, files) {
  const problems = [];
  const before = conversation.images.length;
  for (const file of files) {
    const name = file.name || "the photo";
    try {
      note(`reading ${name} …`);
      conversation.images.push(await read(file));
      conversation.shown = conversation.images.length - 1;
    } catch (error) {
      problems.push(`${name}: ${error.message}`);
    }
  }
  note(problems.join("; "), problems.length > 0);
  if (conversation === now) {
    goOn();
    render();
  }
  if (conversation.images.length > before) keep(conversation);
  return !problems.length;
}

async function tryCard(card, address) {
  $("gallery").close();
  if (running) running.controller.abort();
  const image = new Image();
  image.src = address;
  await image.decode();
  const photo = await blobOf(image, image.naturalWidth, image.naturalHeight, card.name);
  open(fresh());
  const conversation = now;
  await take([photo]);
  if (now !== conversation) return;
  choose(card.task ?? "");
  $("question").value = card.text;
  await send();
}

// controls ---------------------------------------------------------------------------------------------------------------

$("form").addEventListener("submit", (e) => { e.preventDefault(); send(); });
$("question").addEventListener("input", grow);
$("question").addEventListener("keydown", (e) => {
  if (e.key === "Enter" && !e.shiftKey && !e.isComposing) { e.preventDefault(); send(); }
});
$("stop").addEventListener("click", () => running?.controller.abort());
$("new").addEventListener("click", () => { open(fresh()); $("question").focus(); });
$("choose").addEventListener("click", () => $("files").click());
$("add").addEventListener("click", () => $("files").click());
$("files").addEventListener("change", async (e) => { await take([...e.target.files]); e.target.value = ""; });
$("camera").addEventListener("click", () => camera(take));
$("open-gallery").addEventListener("click", async () => (await import("/sketches.js")).openGallery(tryCard));
document.querySelectorAll("[data-close]").forEach((b) => b.addEventListener("click", () => b.closest("dialog").close()));
$("toggle-theme").addEventListener("click", () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
$("toggle-list").addEventListener("click", (e) => toggle(e.currentTarget, $("list").classList.toggle("shown")));
$("toggle-drawer").addEventListener("click", (e) => { $("drawer").hidden = !toggle(e.currentTarget, $("drawer").hidden); });
$("key-form").addEventListener("submit", (e) => e.preventDefault());
$("key").addEventListener("change", (e) => { api.settings.key = e.target.value; sessionStorage.setItem("key", e.target.value); begin(); });
$("export").addEventListener("click", async () => {
  const link = make("a", { href: URL.createObjectURL(new Blob([await store.exported()], { type: "application/json" })), download: "minigpt4-conversations.json" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
});
$("import").addEventListener("click", () => $("import-file").click());
$("import-file").addEventListener("change", async (e) => {
  try {
    const { taken, refused } = await store.imported(await e.target.files[0].text());
    note(`${taken} conversation(s) taken in${refused ? `, ${refused} refused` : ""}`, refused > 0);
    listConversations();
  } catch (error) {
    note(error.message, true);
  }
  e.target.value = "";
});
receive(take);
addEventListener("keydown", (e) => {
  if (e.key === "Escape" && running && !document.querySelector("dialog[open]")) running.controller.abort();
});
stage.listen(() => {}, (phrase) => { // a click on a box asks on
  openTab("tab-ask");
  choose("identify");
  note(phrase ? `asking about ${phrase}: press Enter, or type a question and choose Ask` : "press Enter to ask what this is");
  $("question").focus();
});
store.onChange(async (changed) => {
  listConversations();
  if (changed !== now.id) return;
  if (!store.gone(now)) return catchUp();
  settle(now);
  render();
  note("this was deleted in another tab: what you ask here goes on as a new conversation", true);
});

async function begin() {
  note("");
  try {
    while (!(await api.ready())) {
      $("model").textContent = "the model is being loaded …";
      await new Promise((resolve) => setTimeout(resolve, 700));
    }
    model = await api.model();
    $("model").textContent = model.id;
  } catch (error) {
    $("model").textContent = "not connected";
    note(error.message, true);
    if (/API key/.test(error.message)) { $("drawer").hidden = false; $("key").focus(); }
  }
}

// ChatCaptioner has a tab of its own; its code is loaded when it is opened
const TABS = { "tab-ask": "ask", "tab-captioner": "captioner" };
async function openTab(tab) {
  for (const [button, panel] of Object.entries(TABS)) {
    $(button).setAttribute("aria-selected", button === tab);
    $(button).tabIndex = button === tab ? 0 : -1;
    $(panel).hidden = button !== tab;
  }
  if (tab !== "tab-captioner") return;
  captioner = await import("/captioner.js");
  captioner.begin(() => ({ model: model.id, image: now.images[now.shown] }));
}
for (const tab of Object.keys(TABS)) {
  $(tab).addEventListener("click", () => openTab(tab));
  $(tab).addEventListener("keydown", (e) => {
    if (e.key !== "ArrowLeft" && e.key !== "ArrowRight") return;
    const other = Object.keys(TABS).find((t) => t !== tab);
    openTab(other);
    $(other).focus();
  });
}

const last = await store.get(localStorage.getItem("open") ?? "");
begin();
open(last ?? fresh());
