// What is asked: the words of a task, what it refuses, and the request that goes to the server.

import { POINTING, TASKS, sampling } from "/controls.js";
import { path } from "/tree.js";

export function prompt(model, task, text, box) {
  const known = model.tasks.find((t) => t.name === task);
  if (!known) return box ? `${text} ${box}` : text;
  const subject = task === "identify" ? box : text;
  return `${known.identifier} ${known.prompt.replace("{}", () => subject)}`.trim(); // as it is: "$&" has a meaning of its own there
}

// Why this cannot be asked, or nothing.
export function refusal(conversation, { task, text, box }) {
  const info = TASKS.find((t) => t.id === task);
  if (task && !conversation.images.length) return "this needs a photo: drop one, or choose one";
  if (task === "identify" && !box) return "draw a box on the photo first: with the mouse, or by Draw a box";
  if (!info.bare && !text) return "type a question first";
  if (info.bare && text) return `${info.name} takes no words: empty the line, or choose Ask`;
  if (box && task && task !== "identify") return `${info.name} takes no box: remove it, or choose Ask or Identify`;
  return "";
}

// The photos of a line of messages, in their order.
export const sent = (conversation, head) => path(conversation, head).flatMap((node) => node.images ?? []);

// The photos that go along with a question. Boxes and tasks are about the last one: that is to be the one that is shown.
export function toSend(conversation, aboutOne) {
  const before = sent(conversation);
  const images = conversation.images.map((_, i) => i).filter((i) => !before.includes(i));
  if (!aboutOne || [...before, ...images].at(-1) === conversation.shown) return images;
  return [...images.filter((i) => i !== conversation.shown), conversation.shown];
}

export function request(model, conversation, question, sampled) {
  const messages = path(conversation, question.id).map((node) => {
    if (node.role === "assistant") return { role: "assistant", content: node.text };
    const images = (node.images ?? []).map((i) => ({ type: "image_url", image_url: { url: conversation.images[i].url } }));
    return { role: "user", content: [...images, { type: "text", text: node.prompt }] };
  });
  const body = { model: model.id, messages, ...sampling() };
  if (sampled) { // another answer: the likeliest words, or the same seed, would give the same one again
    body.temperature ||= 0.9;
    if (body.seed !== undefined) body.seed += question.children.length - 1;
  }
  const several = POINTING.includes(question.task) || body.self_consistency > 1;
  body.stream = !several; // what is chosen among several answers comes all at once
  if (body.stream) delete body.self_consistency;
  return body;
}
