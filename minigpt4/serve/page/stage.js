// The image: boxes of an answer over it, and a box of one's own to ask about.

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const LEAST = 0.02; // of a side: the smallest box
const clamp = (v, low = 0, high = 1) => Math.min(Math.max(v, low), high);

let own = null; // {x1, y1, x2, y2}, shares of the sides
let onBox = () => {};
let onPick = () => {};

export function listen(changed, picked) {
  [onBox, onPick] = [changed, picked];
}

export const box = () => own;
export const tint = (element, index) => element.style.setProperty("--c", `var(--c${index % 8})`);
// As the models write it: whole numbers from 0 to 100.
export const boxText = ({ x1, y1, x2, y2 }) => `{${[x1, y1, x2, y2].map((v) => `<${Math.round(v * 100)}>`).join("")}}`;

export function show(image) {
  $("drop").hidden = !!image;
  $("canvas").hidden = $("tools").hidden = !image;
  if (image && $("shown").src !== image.url) {
    $("shown").src = image.url;
    $("shown").alt = image.name || "Your photo";
    setBox(null); // it was drawn on another photo
  }
  if (image) $("frame").style.setProperty("--aspect", image.width / image.height);
}

// Boxes of an answer: [{phrase, relative: [x1, y1, x2, y2]}], one color a phrase.
export function drawBoxes(boxes) {
  const phrases = [...new Set(boxes.map((b) => b.phrase))];
  $("overlay").replaceChildren();
  $("labels").replaceChildren();
  const area = ({ relative: [x1, y1, x2, y2] }) => (x2 - x1) * (y2 - y1);
  const placed = [];
  boxes.toSorted((a, b) => area(b) - area(a)).forEach((b, number, sorted) => { // small ones on top, within reach
    const [x1, y1, x2, y2] = b.relative;
    const index = phrases.indexOf(b.phrase);
    const rect = document.createElementNS(SVG, "rect");
    const attributes = { x: x1 * 100, y: y1 * 100, width: (x2 - x1) * 100, height: (y2 - y1) * 100, tabindex: 0, role: "button", "data-phrase": index };
    for (const [name, value] of Object.entries(attributes)) rect.setAttribute(name, value);
    tint(rect, index);
    rect.setAttribute("aria-label", `${b.phrase || "this"}: ask about it`);
    rect.addEventListener("pointerenter", () => light(index));
    rect.addEventListener("pointerleave", () => light(null));
    rect.addEventListener("focus", () => light(index));
    rect.addEventListener("blur", () => light(null));
    const pick = () => {
      setBox({ x1, y1, x2, y2 });
      onPick(b.phrase);
    };
    rect.addEventListener("pick", pick);
    rect.addEventListener("click", (e) => e.pointerType === "touch" && pick()); // of a mouse, see below
    rect.addEventListener("keydown", (e) => {
      if (e.key === "Enter" || e.key === " ") {
        e.preventDefault();
        pick();
      }
    });
    $("overlay").append(rect);
    if (b.phrase) {
      const label = document.createElement("span");
      label.textContent = b.phrase;
      tint(label, index);
      let y = y1 < 0.06 ? y1 + 0.06 : y1;
      while (y < 0.94 && placed.some((o) => Math.abs(o.y - y) < 0.055 && Math.abs(o.x - x1) < 0.25)) y += 0.06;
      placed.push({ x: x1, y });
      label.style.left = `${x1 * 100}%`;
      label.style.top = `${y * 100}%`;
      label.hidden = sorted.length > 6 && sorted.slice(0, number).some((o) => o.phrase === b.phrase);
      $("labels").append(label);
    }
  });
}

// Ties phrases and boxes: everything of one phrase is lit together.
export function light(index) {
  document.querySelectorAll("[data-phrase]").forEach((e) => e.classList.toggle("lit", index !== null && e.dataset.phrase === String(index)));
  $("overlay").classList.toggle("some-lit", index !== null);
}

// one's own box --------------------------------------------------------------------------------------------------------

export function setBox(next) {
  own = next;
  const shape = $("box");
  shape.hidden = $("shade").hidden = $("clear-box").hidden = !next;
  if (next) {
    for (const { style } of [shape, $("shade").firstElementChild]) {
      style.left = `${next.x1 * 100}%`;
      style.top = `${next.y1 * 100}%`;
      style.width = `${(next.x2 - next.x1) * 100}%`;
      style.height = `${(next.y2 - next.y1) * 100}%`;
    }
    const percent = Object.values(next).map((v) => Math.round(v * 100));
    shape.setAttribute("aria-valuenow", percent[0]);
    shape.setAttribute("aria-valuetext", `left ${percent[0]}, top ${percent[1]}, right ${percent[2]}, bottom ${percent[3]} percent. Arrow keys move it, Shift and arrow keys resize it, Delete removes it.`);
  }
  onBox(next);
}

function moved(b, dx, dy) {
  dx = clamp(dx, -b.x1, 1 - b.x2);
  dy = clamp(dy, -b.y1, 1 - b.y2);
  return { x1: b.x1 + dx, y1: b.y1 + dy, x2: b.x2 + dx, y2: b.y2 + dy };
}

function resized(b, edges, dx, dy) {
  const n = { ...b };
  if (edges.includes("w")) n.x1 = clamp(b.x1 + dx, 0, b.x2 - LEAST);
  if (edges.includes("e")) n.x2 = clamp(b.x2 + dx, b.x1 + LEAST, 1);
  if (edges.includes("n")) n.y1 = clamp(b.y1 + dy, 0, b.y2 - LEAST);
  if (edges.includes("s")) n.y2 = clamp(b.y2 + dy, b.y1 + LEAST, 1);
  return n;
}

function setDrawing(on) {
  $("frame").classList.toggle("drawing", on);
  $("draw").setAttribute("aria-pressed", on);
}

for (const [edges, left, top] of [["nw", 0, 0], ["ne", 100, 0], ["sw", 0, 100], ["se", 100, 100]]) {
  const handle = document.createElement("i");
  handle.dataset.edges = edges;
  handle.style.left = `${left}%`;
  handle.style.top = `${top}%`;
  handle.style.cursor = `${edges}-resize`;
  $("box").append(handle);
}

const frame = $("frame");
const at = (e) => {
  const r = frame.getBoundingClientRect();
  return [clamp((e.clientX - r.left) / r.width), clamp((e.clientY - r.top) / r.height)];
};

frame.addEventListener("pointerdown", (e) => {
  if (e.button !== 0) return;
  const mine = e.target === $("box") || e.target.dataset?.edges;
  if (!mine && e.pointerType === "touch" && !frame.classList.contains("drawing")) return; // a finger scrolls
  e.preventDefault();
  frame.setPointerCapture(e.pointerId);
  const [x, y] = at(e);
  const before = own && { ...own };
  const edges = e.target.dataset?.edges;
  let began = !!mine;
  const move = (m) => {
    const [mx, my] = at(m);
    if (mine) setBox(edges ? resized(before, edges, mx - x, my - y) : moved(before, mx - x, my - y));
    else if (began || Math.hypot(mx - x, my - y) > LEAST) {
      began = true;
      const [x1, x2] = [Math.min(x, mx), Math.max(x, mx)];
      const [y1, y2] = [Math.min(y, my), Math.max(y, my)];
      setBox({ x1, y1, x2: Math.max(x2, Math.min(x1 + LEAST, 1)), y2: Math.max(y2, Math.min(y1 + LEAST, 1)) });
    }
  };
  const end = () => {
    frame.removeEventListener("pointermove", move);
    if (!began && e.target.tagName === "rect") e.target.dispatchEvent(new Event("pick"));
    else if (own) $("box").focus({ preventScroll: true });
    setDrawing(false);
  };
  frame.addEventListener("pointermove", move);
  frame.addEventListener("pointerup", end, { once: true });
  frame.addEventListener("pointercancel", end, { once: true });
});

$("box").addEventListener("keydown", (e) => {
  const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key];
  if (way) {
    e.preventDefault();
    const step = e.altKey ? 0.05 : 0.01;
    const [dx, dy] = way.map((v) => v * step);
    setBox(e.shiftKey ? resized(own, "es", dx, dy) : moved(own, dx, dy));
  } else if (e.key === "Delete" || e.key === "Backspace" || e.key === "Escape") {
    setBox(null);
    $("draw").focus();
  } else if (e.key === "Enter") {
    e.preventDefault(); // it is not for the question, which is to have the focus
    onPick("");
  }
});

$("draw").addEventListener("click", (e) => {
  const on = !frame.classList.contains("drawing");
  setDrawing(on);
  if (e.detail === 0 && on) { // by keyboard: there is a box at once, to be moved
    setDrawing(false);
    if (!own) setBox({ x1: 0.3, y1: 0.3, x2: 0.7, y2: 0.7 });
    $("box").focus();
  }
});
$("clear-box").addEventListener("click", () => setBox(null));
