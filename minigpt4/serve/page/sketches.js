// Drawings for the gallery, made here so that nothing has to be loaded: each is SVG, turned into a photo when it is chosen.

import { $ } from "/controls.js";
import { make } from "/messages.js";

const svg = (body, back = "#fdfcf7") => `<svg xmlns="http://www.w3.org/2000/svg" width="640" height="480" viewBox="0 0 640 480"><rect width="640" height="480" fill="${back}"/>${body}</svg>`;
const hand = 'font-family="Comic Sans MS, Segoe Print, cursive" fill="#223"';
const pen = 'fill="none" stroke="#223" stroke-width="4" stroke-linecap="round"';

export const WEBSITE = svg(`
<path ${pen} d="M52 44q270-9 538 3q6 190-2 388q-270 8-534-2q-9-200-2-389z"/>
<text ${hand} x="210" y="110" font-size="44">My joke page</text><path ${pen} d="M205 124q110-7 235 1"/>
<text ${hand} x="110" y="195" font-size="30">[a funny joke]</text><text ${hand} x="110" y="245" font-size="30">[another one]</text>
<path ${pen} d="M116 300q92-6 204 1q4 30-1 60q-102 5-202-1q-5-30-1-60z"/><text ${hand} x="136" y="338" font-size="25">show the end</text>
<path ${pen} d="M395 190q70-4 130 1q3 60-1 118q-66 4-128-1q-4-60-1-118zM397 192l126 114M521 194L398 306"/>`);

export const PLANT = svg(`
<rect y="380" width="640" height="100" fill="#c9a27a"/><path d="M245 290h150l-20 120h-110z" fill="#c2593a"/><path d="M235 275h170v28h-170z" fill="#d96c48"/>
<path d="M320 280C320 200 318 160 322 96" stroke="#4f7a3a" stroke-width="9" fill="none"/>
<path d="M320 220q-90-10-122-84q88-6 122 84z" fill="#7da453"/><path d="M321 190q84-22 104-92q-84 8-104 92z" fill="#8db35c"/><path d="M321 252q80 6 118 66q-90 8-118-66z" fill="#b9a83f"/>
<path d="M320 260q-70 10-100 74q76 2 100-74z" fill="#c7b04a"/><g fill="#7b4a1e"><circle cx="250" cy="170" r="9"/><circle cx="278" cy="196" r="7"/><circle cx="232" cy="152" r="6"/><circle cx="380" cy="140" r="9"/><circle cx="362" cy="162" r="6"/><circle cx="390" cy="290" r="11"/><circle cx="362" cy="276" r="7"/><circle cx="262" cy="304" r="9"/></g>`, "#e8f0f4");

export const DISH = svg(`
<rect width="640" height="480" fill="#8a5a3b"/><circle cx="320" cy="240" r="190" fill="#fff"/><circle cx="320" cy="240" r="150" fill="#f4efe6"/>
<g fill="none" stroke="#f0c75e" stroke-width="13" stroke-linecap="round"><path d="M210 250q60-80 120-20t110-30M215 290q70-60 110 0t110-40M230 210q70-60 120 10t80-20M240 320q70-50 100-10t90-60"/></g>
<g fill="#c8321f"><circle cx="270" cy="230" r="26"/><circle cx="360" cy="270" r="28"/><circle cx="330" cy="190" r="22"/></g><g fill="#f5d9d2"><circle cx="262" cy="222" r="6"/><circle cx="352" cy="262" r="6"/></g>
<g fill="#2f8a3b"><path d="M300 250q30-46 60-8q-30 26-60 8zM330 300q34-30 56 4q-34 20-56-4zM250 275q10-40 44-20q-10 30-44 20z"/></g>`);

const CARDS = [
  { name: "Humour", image: "/cat.jpg", text: "Explain why this photo is funny." },
  { name: "A recipe", drawing: DISH, text: "How should I make this dish? Give me the recipe." },
  { name: "An advertisement", image: "/camera.jpg", text: "Write an advertisement for what is shown in this photo." },
  { name: "A poem", image: "/astronaut.jpg", text: "Write a short poem about this photo." },
  { name: "A website from a sketch", drawing: WEBSITE, text: "Write brief HTML and JavaScript to turn this sketch into a colourful website." },
  { name: "What is wrong with my plant?", drawing: PLANT, text: "What is wrong with my plant, and what should I do about it?" },
  { name: "Describe, with places", image: "/astronaut.jpg", task: "grounding", text: "" },
  { name: "Find something", image: "/cat.jpg", task: "refer", text: "the left ear" },
  { name: "Find all of them", image: "/camera.jpg", task: "detection", text: "person, camera" },
];

// Opens the gallery; `tryCard` receives the card that is chosen, with the address of its image.
export function openGallery(tryCard) {
  const address = (card) => card.image ?? `data:image/svg+xml,${encodeURIComponent(card.drawing)}`;
  $("cards").replaceChildren(...CARDS.map((card) => make("li", {}, make("button", { class: "card", onclick: () => tryCard(card, address(card)) },
    make("img", { src: address(card), alt: "" }),
    make("div", {}, make("b", {}, card.name), make("span", { class: "quiet" }, card.text || "A description whose phrases are tied to places."))))));
  $("gallery").showModal();
}
