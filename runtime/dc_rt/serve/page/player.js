// A video and its depth, side by side: one set of controls moves both.

import { clock, make } from "./dom.js";

const SOURCE = { kind: "input.mp4", title: "Source" };
const DEPTHS = [
  { kind: "vis.mp4", title: "Colours" },
  { kind: "depth.mp4", title: "Grey" },
];
const MOST_APART = 0.06; // seconds between the two, about one frame

/** An element that plays those of a job's videos that browsers play; null where there are none. */
export function player(files, urlOf, title) {
  const found = ({ kind, title }) => {
    const file = files.find((file) => file.kind === kind && file.media_type === "video/mp4");
    return file ? { title, url: urlOf(file) } : null;
  };
  const source = found(SOURCE);
  const depths = DEPTHS.map(found).filter(Boolean);
  const shown = [source, depths[0]].filter(Boolean);
  if (!shown.length) return null;

  const videos = shown.map(({ url }) =>
    make("video", { src: url, muted: true, playsInline: true, preload: "auto", tabIndex: -1 }),
  );
  const [first] = videos;
  const problem = make("p", { className: "error", role: "alert", hidden: true });
  const button = make("button", { type: "button", className: "play", on: { click: () => (first.paused ? play() : pause()) } });
  const seek = make("input", { type: "range", min: 0, max: 1, step: "any", value: 0, aria: { label: "Position in the video" } });
  const time = make("output", { textContent: "0:00" });

  const play = () => Promise.all(videos.map((video) => video.play())).catch(() => {});
  const pause = () => videos.forEach((video) => video.pause());
  const show = () => {
    button.textContent = first.paused ? "▶" : "❚❚";
    button.setAttribute("aria-label", first.paused ? "Play" : "Pause");
    time.textContent = `${clock(first.currentTime)} / ${clock(first.duration)}`;
    seek.max = first.duration || 1;
    seek.value = first.currentTime;
    seek.setAttribute("aria-valuetext", time.textContent);
  };
  const together = () => {
    for (const video of videos.slice(1)) {
      if (Math.abs(video.currentTime - first.currentTime) > MOST_APART && !video.seeking) video.currentTime = first.currentTime;
    }
    show();
    if (!first.isConnected) pause();
    else if (!first.paused) requestAnimationFrame(together);
  };
  first.addEventListener("play", together);
  first.addEventListener("ended", () => {
    if (!first.isConnected) return;
    for (const video of videos) video.currentTime = 0;
    play();
  });
  for (const event of ["pause", "seeked", "loadedmetadata", "durationchange"]) first.addEventListener(event, show);
  seek.addEventListener("input", () => videos.forEach((video) => (video.currentTime = seek.valueAsNumber)));
  for (const video of videos) {
    video.addEventListener("click", () => button.click());
    video.addEventListener("error", () => {
      problem.textContent = "This browser could not play the video; it can be downloaded below.";
      problem.hidden = false;
    });
  }

  const depth = videos.at(-1);
  const choices = depths.map((each, index) =>
    make("button", {
      type: "button",
      textContent: each.title,
      aria: { pressed: index === 0 },
      on: {
        click: ({ target }) => {
          for (const choice of choices) choice.setAttribute("aria-pressed", choice === target);
          const isPlaying = !first.paused;
          depth.src = each.url;
          depth.addEventListener(
            "loadedmetadata",
            () => {
              depth.currentTime = first.currentTime;
              if (isPlaying) play();
            },
            { once: true },
          );
        },
      },
    }),
  );
  const captions = shown.map((each) => (each === source ? SOURCE.title : "Depth"));
  videos.forEach((video, index) => video.setAttribute("aria-label", `${captions[index]} of ${title}`));
  show();
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) play();
  return make(
    "div",
    { className: "player" },
    make(
      "div",
      { className: "screens" },
      ...videos.map((video, index) =>
        make(
          "figure",
          {},
          video,
          make(
            "figcaption",
            {},
            captions[index],
            video === depth && depths.length > 1 ? make("span", { className: "toggle", role: "group", aria: { label: "Depth as" } }, ...choices) : null,
          ),
        ),
      ),
    ),
    make("div", { className: "controls" }, button, seek, time),
    problem,
  );
}
