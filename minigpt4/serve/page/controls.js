// What can be set on the page, and what it says below the question.

import { make } from "/messages.js";

export const $ = (id) => document.getElementById(id);
export const TASKS = [
  { id: "", name: "Ask", hint: "Ask about the photo" },
  { id: "caption", name: "Describe", hint: "Nothing to type, just ask", bare: true },
  { id: "grounding", name: "Ground", hint: "Nothing to type, just ask", bare: true },
  { id: "refer", name: "Refer", hint: "The man on the left" },
  { id: "detection", name: "Detect", hint: "Dog, car, tree" },
  { id: "identify", name: "Identify", hint: "Draw a box, then ask", bare: true },
  { id: "vqa", name: "Short answer", hint: "A question with a short answer" },
];
export const POINTING = ["refer", "detection", "grounding"]; // their answers are places

export const chosenTask = () => document.querySelector("#tasks input:checked")?.value ?? "";

export function choose(task) {
  const input = document.querySelector(`#tasks input[value="${task}"]`);
  if (input) input.checked = true;
  $("question").placeholder = TASKS.find((t) => t.id === task).hint;
}

export function note(text, bad = false) {
  $("note").textContent = text;
  $("note").classList.toggle("bad", bad);
}

export function grow() {
  const area = $("question");
  area.style.height = "auto";
  area.style.height = `${Math.min(area.scrollHeight, 150)}px`;
}

const isField = (element) => !!element?.matches?.('textarea, input:not([type="radio"])');

// The focus goes there, unless something is typed elsewhere, or a box moved with the arrow keys.
export function takeFocus(element) {
  const { activeElement } = document;
  if (!isField(activeElement) && activeElement !== $("box")) element.focus({ preventScroll: true });
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // over plain http a browser has no clipboard for pages
    const area = make("textarea", { readonly: true });
    const before = document.activeElement;
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    before?.focus({ preventScroll: true });
    if (!copied) return note("this browser lets no page copy: mark the words, and copy them yourself", true);
  }
  note("copied");
}

// Photos that are pasted, or dropped anywhere; text goes into the field that it is meant for.
export function receive(take) {
  const files = (data) => data.types.includes("Files");
  const leave = (e, data) => isField(e.target) && (!files(data) || (e.type === "paste" && data.types.includes("text/plain")));
  addEventListener("paste", (e) => {
    if (!files(e.clipboardData) || leave(e, e.clipboardData)) return;
    e.preventDefault();
    take([...e.clipboardData.files]);
  });
  addEventListener("dragover", (e) => {
    $("veil").hidden = !files(e.dataTransfer);
    if (!leave(e, e.dataTransfer)) e.preventDefault(); // a browser would open what is dropped instead of this page
  });
  addEventListener("dragleave", (e) => { if (!e.relatedTarget) $("veil").hidden = true; });
  addEventListener("drop", (e) => {
    $("veil").hidden = true;
    if (leave(e, e.dataTransfer)) return;
    e.preventDefault();
    if (files(e.dataTransfer)) take([...e.dataTransfer.files]);
  });
}

export function theme(wanted) {
  document.documentElement.dataset.theme = wanted;
  localStorage.setItem("theme", wanted);
}

export function toggle(button, shown) {
  button.setAttribute("aria-expanded", shown);
  return shown;
}

export function sampling() {
  const body = {};
  const temperature = Number($("temperature").value);
  if (temperature >= 0) body.temperature = temperature;
  for (const name of ["top_p", "max_tokens", "seed", "self_consistency"]) {
    if ($(name).value !== "" && $(name).checkValidity()) body[name] = Number($(name).value);
  }
  return body;
}

$("tasks").append(...TASKS.map((t) => make("label", {}, make("input", { type: "radio", name: "task", value: t.id, onchange: () => choose(t.id) }), t.name)));
choose("");
theme(localStorage.getItem("theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
$("temperature").addEventListener("input", (e) => { $("temperature-shown").textContent = e.target.value < 0 ? "as the model says" : e.target.value; });
$("defaults").addEventListener("click", () => {
  for (const name of ["top_p", "max_tokens", "seed", "self_consistency"]) $(name).value = "";
  $("temperature").value = -0.1;
  $("temperature-shown").textContent = "as the model says";
});
