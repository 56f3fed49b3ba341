// What the server is asked.

export const settings = { key: sessionStorage.getItem("key") ?? "" };

function headers(more = {}) {
  return { ...more, ...(settings.key ? { Authorization: `Bearer ${settings.key}` } : {}) };
}

async function checked(response) {
  if (response.ok) return response;
  let message = `the server answered with status ${response.status}`;
  try {
    message = (await response.json()).error.message;
  } catch { /* no JSON: the status must do */ }
  throw new Error(message);
}

export async function model() {
  const response = await checked(await fetch("/v1/models", { headers: headers() }));
  return (await response.json()).data[0];
}

export async function ready() {
  return (await fetch("/ready")).ok;
}

export async function convert(file) {
  const options = { method: "POST", headers: headers({ "Content-Type": "application/octet-stream" }), body: file };
  return (await checked(await fetch("/v1/images/convert", options))).blob();
}

// Asks, and calls onText with the whole text so far; the outcome is {text, boxes, timings, finish}.
export async function ask(body, signal, onText) {
  const options = { method: "POST", headers: headers({ "Content-Type": "application/json" }), body: JSON.stringify(body), signal };
  const response = await checked(await fetch("/v1/chat/completions", options));
  if (!body.stream) {
    const done = await response.json();
    const choice = done.choices[0];
    return { text: choice.message.content, boxes: choice.boxes, timings: done.timings, finish: choice.finish_reason };
  }
  const outcome = { text: "", boxes: [], timings: null, finish: null };
  for await (const event of events(response)) {
    if (event.error) throw new Error(event.error.message);
    const choice = event.choices[0];
    if (!choice) continue;
    if (choice.delta.content) onText((outcome.text += choice.delta.content));
    if (choice.boxes) outcome.boxes = choice.boxes;
    if (choice.finish_reason) outcome.finish = choice.finish_reason;
    if (event.timings) outcome.timings = event.timings;
  }
  if (!outcome.finish) throw new Error("the connection broke before the answer ended");
  return outcome;
}

// A dialogue about an image, event by event: {type: question | answer | problem | caption | done, text, ...}.
export async function* dialogue(body, signal) {
  const options = { method: "POST", headers: headers({ "Content-Type": "application/json" }), body: JSON.stringify(body), signal };
  let ended = false;
  for await (const event of events(await checked(await fetch("/v1/dialogues", options)))) {
    if (event.error) throw new Error(event.error.message);
    ended ||= event.type === "done";
    yield event;
  }
  if (!ended) throw new Error("the connection broke before the dialogue ended");
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const parts = held.split("\n\n");
    held = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data !== "[DONE]") yield JSON.parse(data);
    }
  }
}
