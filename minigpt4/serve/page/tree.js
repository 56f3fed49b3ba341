// A conversation: a tree of messages, of which the path to `head` is shown.

export const UNNAMED = "New conversation";
export const id = () => crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`.replace(".", "");
export const fresh = () => ({ id: id(), title: UNNAMED, changed: Date.now(), images: [], shown: 0, nodes: {}, roots: [], head: null });

export function path(conversation, head = conversation.head) {
  const out = [];
  for (let node = conversation.nodes[head]; node; node = conversation.nodes[node.parent]) out.unshift(node);
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
