// A conversation: a tree of messages, of which the path to `head` is shown.

export const UNNAMED = "New conversation";
export const id = () => crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`.replace(".", "");
export const fresh = () => ({ id: id(), title: UNNAMED, changed: Date.now(), images: [], shown: 0, nodes: {}, roots: [], head: null });

export function path(conversation, head = conversation.head) {
  const out = [];
  for (let node = conversation.nodes[head]; node && !out.includes(node); node = conversation.nodes[node.parent]) out.unshift(node);
  return out;
}

export const siblings = (conversation, node) => (node.parent ? conversation.nodes[node.parent].children : conversation.roots);

export function add(conversation, message, parent) {
  const node = { id: id(), parent, children: [], ...message };
  conversation.nodes[node.id] = node;
  (parent ? conversation.nodes[parent].children : conversation.roots).push(node.id);
  conversation.head = node.id;
  return node;
}

export function leaf(conversation, nodeId) {
  let node = conversation.nodes[nodeId];
  while (node.children.length) node = conversation.nodes[node.children.at(-1)];
  return node.id;
}

// The line to this node, as a conversation of its own.
export function branch(conversation, node) {
  const { nodes, roots, head, ...rest } = structuredClone(conversation);
  const made = { ...rest, id: id(), title: `${rest.title} (branch)`, nodes: {}, roots: [], head: null };
  for (const { id: _, parent, children, ...message } of path(conversation, node.id)) add(made, structuredClone(message), made.head);
  return made;
}

// What another tab has added to the same conversation is added to this one; what is shown here stays shown.
export function join(mine, theirs) {
  const ended = (node) => node.timings || node.error;
  const further = (own, node) => !ended(own) && (ended(node) || node.text.length > own.text.length || (own.writing && !node.writing && node.text.length === own.text.length));
  const place = theirs.images.map((image, i) => { // both may have added photos
    if (mine.images[i]?.url === image.url) return i;
    const known = mine.images.findIndex((own) => own.url === image.url);
    return known < 0 ? mine.images.push(image) - 1 : known;
  });
  const placed = (node) => ({ ...node, images: node.images?.map((i) => place[i]), boxes: node.boxes?.map((b) => ({ ...b, image: place[b.image] ?? b.image })) });
  for (const [id, node] of Object.entries(theirs.nodes)) {
    const own = mine.nodes[id];
    const children = [...new Set([...node.children, ...(own?.children ?? [])])];
    if (!own) mine.nodes[id] = { ...placed(node), children };
    else Object.assign(own, further(own, node) ? placed(node) : {}, { children });
  }
  mine.roots = [...new Set([...theirs.roots, ...mine.roots])];
  if (mine.title === UNNAMED) mine.title = theirs.title;
  mine.changed = Math.max(mine.changed, theirs.changed);
}

// Where another tab has gone on from what is shown here, it is followed; a branch of its own is not.
export function follow(mine, theirs) {
  join(mine, theirs);
  if (!mine.head || path(theirs).some((node) => node.id === mine.head)) mine.head = theirs.head;
}

// Whether what a file holds can be shown: every message in its place, every photo there.
export function sound(conversation) {
  try {
    return looksSound(conversation) && hangsTogether(conversation);
  } catch { // something is missing altogether
    return false;
  }
}

function looksSound({ id, title, images, shown, nodes }) {
  const maybe = (kind) => (value) => value === undefined || value === null || typeof value === kind;
  const there = (i) => Number.isInteger(i) && i >= 0 && i < images.length;
  const image = ({ url, name }) => /^data:image\/(jpeg|png|webp|gif);base64,/.test(url) && maybe("string")(name);
  const box = ({ phrase, relative, image }) => maybe("string")(phrase) && relative.length === 4 && relative.every(Number.isFinite) && there(image);
  const node = (n) =>
    (n.role === "user" || n.role === "assistant") && typeof n.text === "string" && [n.task, n.box, n.prompt, n.error, n.finish].every(maybe("string")) &&
    (n.role === "assistant" || typeof n.prompt === "string") && (n.images ?? []).every(there) && (n.boxes ?? []).every(box) &&
    (!n.timings || [n.timings.first_token_ms, n.timings.total_ms, n.timings.tokens_per_second].every(Number.isFinite));
  return typeof id === "string" && typeof title === "string" && images.every(image) && (there(shown) || shown === 0) && Object.values(nodes).every(node);
}

// From the roots every message is reached once, by its parent.
function hangsTogether({ nodes, roots, head }) {
  const reached = new Set();
  const rest = roots.map((id) => [id, null]);
  while (rest.length) {
    const [id, parent] = rest.pop();
    const node = nodes[id];
    if (reached.has(id) || node.id !== id || node.parent !== parent) return false;
    reached.add(id);
    rest.push(...node.children.map((child) => [child, id]));
  }
  return reached.size === Object.keys(nodes).length && (head === null || reached.has(head));
}
