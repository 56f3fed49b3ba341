// How messages look: words, phrases that are tied to boxes, what can be done with them.

import { light, tint } from "/stage.js";

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true || value === false) element.toggleAttribute(name, value);
    else if (value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((c) => c !== null && c !== undefined));
  return element;
}

const BOX = "\\{\\s*(?:<\\d+>\\s*){4}\\}";
const TIED = new RegExp(`<p>(.*?)</p>\\s*(?:${BOX}(?:<delim>)?\\s*)+`, "gs");

// Text without markup; a phrase that is tied to places becomes a button that lights its boxes, and shows them when pressed.
export function words(text, phrases, show) {
  const out = document.createDocumentFragment();
  let end = 0;
  for (const match of text.matchAll(TIED)) {
    out.append(bare(text.slice(end, match.index)));
    const name = match[1].trim().replace(/\s+/g, " ");
    const index = phrases.indexOf(name);
    out.append(index < 0 ? name : tied(make("button", { class: "phrase", type: "button", onclick: show }, name), index), /^(?:$|[\s.,;:!?)])/.test(text.slice(match.index + match[0].length).trimStart()) ? "" : " ");
    end = match.index + match[0].length;
    while (text[end] === " ") end += 1;
  }
  out.append(bare(text.slice(end)));
  return out;
}

export function fill(bubble, node, show) {
  const phrases = [...new Set((node.boxes ?? []).map((b) => b.phrase))];
  const nothing = node.boxes?.length ? "Here:" : node.writing || node.error ? "" : node.finish === "stopped" ? "(stopped)" : "(no words)";
  bubble.replaceChildren(bare(node.text).trim() || node.boxes?.length && /<p>/.test(node.text) ? words(node.text, phrases, show) : nothing);
  if (node.error) bubble.append(make("p", { class: "problem" }, node.error)); // what was said before stays
}

export function bare(text) {
  return text
    .replace(new RegExp(BOX, "g"), "")
    .replace(/<\/?p>|<delim>/g, "")
    .replace(/(?:\{[<>\d\s]*|<\/?p?)$/, "") // what is only begun, while it is being written
    .replace(/ {2,}/g, " ");
}

export function tied(element, index) {
  tint(element, index);
  element.dataset.phrase = index;
  for (const [event, value] of [["pointerenter", index], ["pointerleave", null], ["focus", index], ["blur", null]]) {
    element.addEventListener(event, () => light(value));
  }
  return element;
}

export const website = (text) => {
  const fenced = text.match(/```(?:html)?\s*([\s\S]*?)(?:```|$)/i)?.[1];
  const html = fenced ?? text;
  return /<(?:!doctype html|html|body|head|button|h1|div|style)\b/i.test(html) ? html : null;
};

// A website that the model wrote, in a frame that can reach neither this page nor anything else.
export function siteFrame(html) {
  const frame = make("iframe", { class: "site", sandbox: "allow-scripts", src: "/frame", title: "The website that the model wrote" });
  frame.addEventListener("load", () => frame.contentWindow.postMessage(html, "*"), { once: true });
  return frame;
}

export function time(t) {
  if (!t) return "";
  const seconds = (ms) => `${(ms / 1000).toFixed(ms < 9950 ? 2 : 1)} s`;
  return `${seconds(t.first_token_ms)} to the first word, ${seconds(t.total_ms)} in all, ${Math.round(t.tokens_per_second)} tokens/s`;
}
