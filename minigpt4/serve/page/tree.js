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
