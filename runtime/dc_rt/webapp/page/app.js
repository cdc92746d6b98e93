// Puts players where the page has results: source and depth, moved by one set of controls.

import { player } from "./player.js";

function put(place) {
  const files = JSON.parse(place.dataset.files);
  const made = player(files, (file) => file.url, place.dataset.title);
  if (made) {
    place.replaceChildren(made);
    return;
  }
  const words = document.createElement("p");
  words.className = "dc-note";
  words.textContent = "None of these files is a video that browsers play; they can be downloaded.";
  place.replaceChildren(words);
}

function look() {
  for (const place of document.querySelectorAll(".dc-player:empty")) put(place);
}

new MutationObserver(look).observe(document.documentElement, { childList: true, subtree: true });
look();
