// Conversations in this browser (IndexedDB), and as a file.

import { id, join, sound } from "/tree.js";

const FORMAT = "minigpt4-conversations-1";
const channel = "BroadcastChannel" in window ? new BroadcastChannel("minigpt4") : null;

const database = new Promise((resolve) => {
  const asked = indexedDB.open("minigpt4", 1);
  asked.onupgradeneeded = () => asked.result.createObjectStore("conversations", { keyPath: "id" });
  asked.onsuccess = () => resolve(asked.result);
  asked.onerror = () => resolve(null); // private windows may have none: the page works, and forgets
});
const memory = new Map();
const removed = new Set(); // an answer that was still being written does not bring its conversation back

async function run(mode, work) {
  const db = await database;
  if (!db) return null;
  return new Promise((resolve, reject) => {
    const change = db.transaction("conversations", mode);
    const asked = work(change.objectStore("conversations"));
    change.oncomplete = () => resolve(asked.result);
    change.onerror = change.onabort = () => reject(change.error);
  });
}

export async function all() {
  const found = (await run("readonly", (store) => store.getAll())) ?? [...memory.values()];
  return found.sort((a, b) => b.changed - a.changed);
}

export async function get(id) {
  return (await run("readonly", (store) => store.get(id))) ?? memory.get(id) ?? null;
}

// What another tab has added to the same conversation meanwhile is kept, and added to this one.
export async function save(conversation) {
  if (gone(conversation)) return;
  conversation.changed = Date.now();
  if (!(await database)) memory.set(conversation.id, conversation);
  await run("readwrite", (store) => {
    const asked = store.get(conversation.id);
    asked.onsuccess = () => {
      if (asked.result) join(conversation, asked.result);
      store.put(structuredClone(conversation));
    };
    return asked;
  });
  channel?.postMessage(conversation.id);
}

// Deleted, here or in another tab.
export const gone = (conversation) => removed.has(conversation.id);

export async function remove(id) {
  removed.add(id);
  memory.delete(id);
  await run("readwrite", (store) => store.delete(id));
  channel?.postMessage({ removed: id });
}

export function onChange(listener) {
  if (!channel) return;
  channel.onmessage = ({ data }) => { // another tab has saved, or removed
    if (data.removed) removed.add(data.removed);
    listener(data.removed ?? data);
  };
}

export async function exported() {
  return JSON.stringify({ format: FORMAT, conversations: await all() });
}

export async function imported(text) {
  let data;
  try {
    data = JSON.parse(text);
  } catch {
    throw new Error("this file is not JSON");
  }
  if (data?.format !== FORMAT || !Array.isArray(data.conversations)) throw new Error("this file holds no conversations of this page");
  const taken = data.conversations.filter(sound);
  for (const conversation of taken) {
    if ((await get(conversation.id)) || gone(conversation)) conversation.id = id();
    await save(conversation);
  }
  return { taken: taken.length, refused: data.conversations.length - taken.length };
}
