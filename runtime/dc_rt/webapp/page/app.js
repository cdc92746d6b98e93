// Puts players where the page has results: source and depth, moved by one set of controls. Shows what was begun.

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

// Where the page is one column, the video that was begun is below what is seen.
let begun = false;
document.addEventListener("click", ({ target }) => {
  if (target.closest("#run, #resume")) begun = true;
});
function follow() {
  const card = begun && document.querySelector("#card [data-status=running], #card [data-status=queued], #problem p");
  if (!card) return;
  begun = false;
  card.scrollIntoView({ block: "nearest" });
}

new MutationObserver(() => {
  look();
  follow();
}).observe(document.documentElement, { childList: true, subtree: true });
look();
