// The page: what is said of the result, what can be set, and what the keys do.
"use strict";

const byId = (id) => document.getElementById(id);
const ABOUT = JSON.parse(byId("about").textContent);
const MAPS = Object.fromEntries(
  Object.entries(ABOUT.colours).map(([name, text]) => [name, Uint8Array.from(atob(text), (each) => each.charCodeAt(0))]),
);
const COUNT = ABOUT.times.length;
const SPEEDS = [0.1, 0.25, 0.5, 1, 2, 4];
const BLENDS = { Source: 0, Depth: 1, Both: 0.5 };

/** An element with properties and children. Text is set as text alone, never as markup. */
function make(tag, { on = {}, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  for (const [event, listener] of Object.entries(on)) element.addEventListener(event, listener);
  element.append(...children);
  return element;
}

/** Show a sentence where the person looks: what is wrong with the whole file, unless there is one, or nothing. */
function say(sentence = state.fault) {
  byId("stage-message").textContent = sentence;
  byId("stage-message").hidden = !sentence;
}

const state = { shown: -1, numShown: 0, numDrawn: 0, fault: "", surface: "Mesh", paint: "Source" };
const frames = new Frames(ABOUT, byId("unpacker").textContent, (index) => index === player.index && show(index), onFault);
const player = new Player(
  ABOUT.times,
  ABOUT.end,
  (index) => state.shown === index || frames.faults.has(index),
  (index) => {
    decodeAround(index);
    show(index);
    tell();
  },
);
byId("viewer").hidden = false;
const space = openSpace();

function openSpace() {
  try {
    return new SpaceView(byId("scene"), ABOUT, ABOUT.lens, () => {});
  } catch {
    byId("scene").hidden = true;
    state.fault =
      "This browser has no WebGL 2, so that the scene cannot be shown; switch hardware acceleration on, or take another browser.";
    say();
    return null;
  }
}

// Frames

/** Decode the frame that is shown first, then those that come next. */
function decodeAround(index) {
  const after = Array.from({ length: frames.ahead }, (_, ahead) => index + 1 + ahead);
  const next = player.isPlaying && player.repeats ? after.map((each) => each % COUNT) : after;
  frames.want([index, ...next, ...(player.isPlaying ? [] : [index - 1])].filter((each) => each >= 0 && each < COUNT));
}

function show(index) {
  const frame = frames.peek(index);
  if (frames.faults.has(index)) return onFault(index);
  if (!frame) return;
  if (state.shown !== index) state.numShown++;
  state.shown = index;
  say();
  space?.show(frame);
  drawPictures(frame);
  probe();
  tell();
}

function onFault(index) {
  if (index === player.index) say(`Frame ${ABOUT.numbers[index]} of this file is damaged; write it again with dc-rt view.`);
}

// Pictures

const source = byId("source").getContext("2d");
const depth = byId("depth").getContext("2d");
for (const { canvas } of [source, depth]) {
  canvas.width = ABOUT.width;
  canvas.height = ABOUT.height;
  canvas.style.aspectRatio = `${ABOUT.width * ABOUT.pixelAspect} / ${ABOUT.height}`;
  canvas.addEventListener("pointermove", (event) => probe(event));
  canvas.addEventListener("pointerdown", (event) => probe(event));
  canvas.addEventListener("pointerleave", () => probe(null));
}
const depthPixels = depth.createImageData(ABOUT.width, ABOUT.height);
const depthWords = new Uint32Array(depthPixels.data.buffer);

/** Colours of all whole numbers that depth can be, as one word a pixel. */
function wordsOf(map) {
  const top = 2 ** ABOUT.bits - 1;
  const table = new Uint32Array(top + 1);
  const colours = new Uint32Array(rgba(map).buffer);
  for (let value = 0; value <= top; value++) table[value] = colours[Math.floor((value / top) * 255)];
  return table;
}

/** A map with an opaque alpha: Uint8Array [256,4]. */
function rgba(map) {
  const table = new Uint8Array(256 * 4).fill(255);
  for (let level = 0; level < 256; level++) table.set(map.subarray(3 * level, 3 * level + 3), 4 * level);
  return table;
}

function drawPictures({ values, image }) {
  source.drawImage(image, 0, 0);
  for (let index = 0; index < values.length; index++) depthWords[index] = state.words[values[index]];
  depth.putImageData(depthPixels, 0, 0);
}

/** Say what depth is at the pointer: at the last place, unless there is another one, or none. */
function probe(event) {
  if (event === null) state.probed = null;
  else if (event) {
    const box = event.currentTarget.getBoundingClientRect();
    const at = (position, length, count) => Math.min(Math.max(Math.floor((position / length) * count), 0), count - 1);
    state.probed = {
      x: at(event.clientX - box.left, box.width, ABOUT.width),
      y: at(event.clientY - box.top, box.height, ABOUT.height),
    };
  }
  const frame = state.probed && state.shown >= 0 && frames.decoded.get(state.shown);
  if (!frame) return void (byId("probe").textContent = "Point at a picture to read its depth.");
  const { x, y } = state.probed;
  const share = frame.values[y * ABOUT.width + x] / (2 ** ABOUT.bits - 1);
  const { near, far } = state.lens;
  const distance = 1 / (1 / far + share * (1 / near - 1 / far));
  byId("probe").textContent = `x ${x}, y ${y}: depth ${share.toFixed(5)}, distance ${distance.toPrecision(4)}${ABOUT.isMetric ? " m" : ""}`;
}

// Time

function tell() {
  const index = player.index;
  const shots = ABOUT.shots;
  const shot = shots.findLastIndex((start) => start <= index);
  byId("time").value = index;
  byId("time").setAttribute("aria-valuetext", `Frame ${ABOUT.numbers[index]}`);
  byId("where").replaceChildren(
    `Frame ${ABOUT.numbers[index]} `,
    make("small", {}, `of 0 to ${ABOUT.numFrames - 1} · ${ABOUT.times[index].toFixed(3)} s${shots.length > 1 ? ` · shot ${shot + 1} of ${shots.length}` : ""}`),
  );
  byId("play").setAttribute("aria-label", player.isPlaying ? "Pause" : "Play");
  byId("play-icon").setAttribute("d", player.isPlaying ? "M7 5h3.500v14H7zM13.500 5H17v14h-3.500z" : "M8 5v14l11-7z");
  const loaded = frames.packed.length;
  byId("time").style.setProperty("--loaded", `${(100 * loaded) / COUNT}%`);
  byId("badge").textContent = loaded < COUNT ? `Loading: ${loaded} of ${COUNT} frames` : state.shown === index || frames.faults.has(index) ? "" : "Decoding…";
}

function togglePlay() {
  if (player.isPlaying) player.pause();
  else player.play();
  decodeAround(player.index);
  tell();
}

function step(by) {
  player.pause();
  player.seek(player.index + by);
}

function setSpeed(by) {
  const at = SPEEDS.indexOf(player.speed) + by;
  player.speed = SPEEDS[Math.min(Math.max(at, 0), SPEEDS.length - 1)];
  byId("speed").value = player.speed;
}

function toggleRepeat() {
  player.repeats = !player.repeats;
  byId("loop").setAttribute("aria-pressed", player.repeats);
}

byId("time").max = COUNT - 1;
byId("time").addEventListener("input", ({ target }) => {
  player.pause();
  player.seek(Number(target.value));
});
byId("play").addEventListener("click", togglePlay);
byId("back").addEventListener("click", () => step(-1));
byId("on").addEventListener("click", () => step(1));
byId("loop").addEventListener("click", toggleRepeat);
byId("speed").append(...SPEEDS.map((speed) => new Option(`${speed}×`, speed, speed === 1, speed === 1)));
byId("speed").addEventListener("change", ({ target }) => (player.speed = Number(target.value)));
for (const start of ABOUT.shots.slice(1)) {
  const cut = byId("cuts").appendChild(make("span"));
  cut.style.left = `${(100 * start) / (COUNT - 1)}%`;
}

// What can be set

/** Buttons of which one is pressed; returns what presses another. */
function choice(place, names, chosen, onchange) {
  const buttons = names.map((name) => make("button", { type: "button", textContent: name, on: { click: () => press(name) } }));
  function press(name) {
    for (const button of buttons) button.setAttribute("aria-pressed", button.textContent === name);
    onchange(name);
  }
  byId(place).append(...buttons);
  press(chosen);
  return press;
}

/** A labelled slider whose number is said. `from` and `to` make the slider's value of it, and back. */
function slider({ id, label, min, max, value, words, from = (number) => number, to = (number) => number, onchange }) {
  const output = make("output", { htmlFor: id });
  const input = make("input", {
    id, type: "range", min: to(min), max: to(max), step: (to(max) - to(min)) / 400, value: to(value),
    on: { input: () => set(from(Number(input.value))) },
  });
  function set(number) {
    output.textContent = words(number);
    input.setAttribute("aria-valuetext", output.textContent);
    onchange(number);
  }
  const row = make("div", { className: "setting" }, make("label", { htmlFor: id, textContent: label }), output, input);
  byId("settings").append(row);
  output.textContent = words(value);
  return {
    row,
    show: (number) => {
      input.value = to(number);
      output.textContent = words(number);
    },
  };
}

const logarithm = { from: Math.exp, to: Math.log };
const unit = ABOUT.isMetric ? " m" : "";
const wordsOfDistance = (number) => `${number.toPrecision(3)}${unit}`;
state.lens = { ...ABOUT.lens };

function setLens(change) {
  Object.assign(state.lens, change);
  // Nothing is nearer than the nearest: whichever was not moved gives way.
  const { near, far } = state.lens;
  if (far < 1.01 * near) Object.assign(state.lens, "far" in change ? { near: far / 1.01 } : { far: 1.01 * near });
  nearSlider.show(state.lens.near);
  farSlider.show(state.lens.far);
  space?.setLens(state.lens);
  probe();
}

slider({
  id: "focal", label: "Focal length", min: Math.min(0.3, ABOUT.lens.focal), max: Math.max(4, ABOUT.lens.focal), value: ABOUT.lens.focal, ...logarithm,
  words: (focal) => `${focal.toFixed(2)} widths, ${((2 * Math.atan(0.5 / focal) * 180) / Math.PI).toFixed(0)}°`,
  onchange: (focal) => setLens({ focal }),
});
const { near: NEAR, far: FAR } = ABOUT.lens;
const nearSlider = slider({
  id: "near", label: "Nearest", min: NEAR / 10, max: NEAR * 10, value: NEAR, ...logarithm, words: wordsOfDistance,
  onchange: (near) => setLens({ near }),
});
const farSlider = slider({
  id: "far", label: "Farthest", min: NEAR * 1.05, max: FAR * 20, value: FAR, ...logarithm, words: wordsOfDistance,
  onchange: (far) => setLens({ far }),
});
for (const { row } of [nearSlider, farSlider]) row.hidden = ABOUT.isMetric; // metres were measured, and are no choice
const { pointScale: POINT_SCALE, edge: EDGE } = SpaceView.defaults;
const pointSlider = slider({
  id: "points", label: "Point size", min: 0.25, max: 4, value: POINT_SCALE, ...logarithm, words: (scale) => `${scale.toFixed(2)} pixels`,
  onchange: (scale) => space?.set({ pointScale: scale }),
});
const NO_CUT = 1;
const edgeSlider = slider({
  id: "edge", label: "Cut at edges", min: 0.01, max: NO_CUT, value: EDGE,
  words: (edge) => (edge < NO_CUT ? `where depth steps by ${(100 * edge).toFixed(0)} %` : "nowhere"),
  onchange: (edge) => space?.set({ edge: edge < NO_CUT ? edge : -1 }),
});

function select(id, label, options, chosen, onchange) {
  const input = make("select", { id, on: { change: () => onchange(input.value) } });
  input.append(...Object.entries(options).map(([value, text]) => new Option(text, value, value === chosen, value === chosen)));
  byId("settings").append(make("div", { className: "setting" }, make("label", { htmlFor: id, textContent: label }), input));
  onchange(chosen);
}

select("map", "Colours of depth", Object.fromEntries(Object.keys(MAPS).map((name) => [name, name[0].toUpperCase() + name.slice(1)])), ABOUT.colormap, (name) => {
  state.words = wordsOf(MAPS[name]);
  space?.paint(rgba(MAPS[name]));
  if (state.shown >= 0) show(state.shown);
});
select("stride", "Detail", { 1: "Every pixel", 2: "Every 2nd", 4: "Every 4th" }, "1", (stride) => space?.set({ stride: Number(stride) }));

const pressSurface = choice("surface", ["Mesh", "Points"], "Mesh", (name) => {
  state.surface = name;
  pointSlider.row.hidden = name !== "Points";
  edgeSlider.row.hidden = name !== "Mesh";
  space?.set({ isMesh: name === "Mesh" });
});
const pressPaint = choice("paint", Object.keys(BLENDS), "Source", (name) => {
  state.paint = name;
  space?.set({ blend: BLENDS[name] });
});

// The view

async function saveScreenshot() {
  const blob = await space?.screenshot();
  if (!blob) return;
  const url = URL.createObjectURL(blob);
  const name = ABOUT.name.replace(/[^\p{L}\p{N}._ -]/gu, "_");
  make("a", { href: url, download: `${name}_view_${String(ABOUT.numbers[player.index]).padStart(4, "0")}.png` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

function toggleFullscreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else document.documentElement.requestFullscreen?.().catch(() => {});
}

function togglePanel() {
  const isWide = document.querySelector("main").classList.toggle("wide");
  byId("panel").setAttribute("aria-expanded", !isWide);
}

byId("fullscreen").hidden = !document.fullscreenEnabled;
byId("home").addEventListener("click", () => space?.home());
byId("camera").addEventListener("click", () => space?.lookAsCamera());
byId("screenshot").addEventListener("click", saveScreenshot);
byId("fullscreen").addEventListener("click", toggleFullscreen);
byId("panel").addEventListener("click", togglePanel);
byId("keys").addEventListener("click", () => byId("keys-dialog").showModal());

const next = (names, name) => names[(names.indexOf(name) + 1) % names.length];
const KEYS = {
  " ": ["Space", "play or pause", togglePlay],
  ArrowLeft: ["←", "one frame back; ten with Shift", (event) => step(event.shiftKey ? -10 : -1)],
  ArrowRight: ["→", "one frame on; ten with Shift", (event) => step(event.shiftKey ? 10 : 1)],
  Home: ["Home", "first frame", () => step(-COUNT)],
  End: ["End", "last frame", () => step(COUNT)],
  "+": ["+", "faster", () => setSpeed(1)],
  "-": ["-", "slower", () => setSpeed(-1)],
  l: ["L", "repeat, or not", toggleRepeat],
  m: ["M", "mesh or points", () => pressSurface(next(["Mesh", "Points"], state.surface))],
  c: ["C", "colours of the source, of depth, or both", () => pressPaint(next(Object.keys(BLENDS), state.paint))],
  r: ["R", "reset the view", () => space?.home()],
  v: ["V", "see it as the camera did", () => space?.lookAsCamera()],
  s: ["S", "save a picture of the scene", saveScreenshot],
  f: ["F", "full screen", toggleFullscreen],
  h: ["H", "show or hide the panel", togglePanel],
  "?": ["?", "these keys", () => byId("keys-dialog").showModal()],
};
const GESTURES = [
  ["Drag", "turn; with one finger, too"],
  ["Right drag", "move; with two fingers, too"],
  ["Wheel", "zoom to the pointer; or pinch"],
];
byId("keys-list").append(
  ...GESTURES.flatMap(([gesture, words]) => [make("dt", {}, gesture), make("dd", {}, words)]),
  ...Object.values(KEYS).flatMap(([key, words]) => [make("dt", {}, make("kbd", {}, key)), make("dd", {}, words)]),
);
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("keys-dialog").open) return;
  // What has the keyboard has its own keys: sliders, lists, and buttons the space bar.
  const { tagName, id } = event.target;
  if (tagName === "SELECT" || (tagName === "INPUT" && id !== "time") || (tagName === "BUTTON" && event.key === " ")) return;
  const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action) return;
  event.preventDefault();
  action[2](event);
});

// The result

document.title = `${ABOUT.name} in depth`;
byId("name").textContent = ABOUT.name;
byId("facts").textContent = ABOUT.facts;
byId("about-list").append(...ABOUT.details.flatMap(([term, words]) => [make("dt", {}, term), make("dd", {}, words)]));

document.addEventListener("DOMContentLoaded", () => {
  const missing = COUNT - frames.packed.length;
  if (!missing) return;
  state.fault = `The last ${missing} of ${COUNT} frames are missing from this file, which was not copied whole; copy it again.`;
  say();
});
if (space) {
  space.canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
  space.canvas.addEventListener("webglcontextrestored", () => show(state.shown));
}

function draw(now) {
  player.tick(now / 1000);
  if (space?.draw()) state.numDrawn++;
  requestAnimationFrame(draw);
}
decodeAround(0);
tell();
probe(null);
requestAnimationFrame(draw);

/** For programs: what is decoded of a frame, by its place in this file, as numbers. */
window.viewer = {
  about: ABOUT,
  /** Take the frame whose data stand before the script that calls this, and make room. */
  take() {
    const { currentScript } = document;
    const data = currentScript.previousElementSibling;
    frames.add(data.textContent);
    data.remove();
    currentScript.remove();
    tell();
  },
  /** Depth in [0,1], row by row. */
  async depth(index) {
    return Float32Array.from((await frames.load(index)).values, (value) => value / (2 ** ABOUT.bits - 1));
  },
  /** The picture as RGBA, row by row. */
  async picture(index) {
    const canvas = new OffscreenCanvas(ABOUT.width, ABOUT.height);
    const context = canvas.getContext("2d");
    context.drawImage((await frames.load(index)).image, 0, 0);
    return context.getImageData(0, 0, ABOUT.width, ABOUT.height).data;
  },
  /** What is shown, how many frames and drawings that has been, and bytes of what is decoded. */
  get status() {
    return { shown: state.shown, numShown: state.numShown, numDrawn: state.numDrawn, bytes: frames.bytes, numPacked: frames.packed.length };
  },
  seek: (index) => player.seek(index),
};
