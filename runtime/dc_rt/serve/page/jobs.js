// A card for each job: what it is, how far it is, and what can be done with it.

import { call } from "./api.js";
import { byId, bytes, duration, make, say } from "./dom.js";
import { player } from "./player.js";

export const STATUSES = { queued: "Queued", running: "Running", finished: "Finished", failed: "Failed", cancelled: "Cancelled" };
export const isOver = ({ status }) => status !== "queued" && status !== "running";

const defaults = new Map();

/** Cards say of a job's options those that are not the default ones. */
export function knowDefaults(options) {
  for (const option of options) defaults.set(option.name, String(option.default));
}

/** The card of a job; `changed(job)` is told what an action made of it, or null where it is no more. */
export class Card {
  constructor(job, changed) {
    this.changed = changed;
    this.path = `/jobs/${encodeURIComponent(job.id)}`;
    this.name = make("h3");
    this.status = make("span", { className: "status" });
    this.details = make("p", { className: "details quiet" });
    this.progress = make("progress", { max: 1, aria: { label: `Progress of ${job.filename}` } });
    this.state = make("p", { className: "state" });
    this.error = make("p", { className: "error" });
    this.refusal = make("p", { className: "error", role: "alert", hidden: true });
    this.buttons = {
      results: this.button("Show results", () => this.toggle(), "primary"),
      cancel: this.button("Cancel", () => this.act("POST", "/cancel")),
      resume: this.button("Resume", () => this.act("POST", "/resume"), "primary"),
      delete: this.button("Delete", () => this.remove(), "danger"),
    };
    this.results = make("div", { className: "results", hidden: true });
    this.element = make(
      "li",
      { className: "card" },
      make("div", { className: "head" }, this.name, this.status),
      this.details,
      this.progress,
      this.error,
      this.refusal,
      make("div", { className: "foot" }, this.state, make("p", { className: "actions" }, ...Object.values(this.buttons))),
      this.results,
    );
    this.show(job);
  }

  /** What changed, without touching what did not: a reader or a focused button stays where it is. */
  show(job) {
    if (job.started !== this.job?.started) this.share = null;
    this.job = job;
    this.name.textContent = job.filename;
    this.status.textContent = STATUSES[job.status] ?? job.status;
    this.element.dataset.status = job.status;
    this.details.textContent = detailsOf(job);
    this.progress.hidden = job.status !== "running";
    if (!isOver(job)) this.tell(job);
    else say(this.state, tookOf(job));
    say(this.error, job.status === "failed" ? (job.error ?? "") : "");
    this.buttons.results.hidden = !(job.status === "finished" && job.files.length);
    this.buttons.cancel.hidden = isOver(job);
    this.buttons.resume.hidden = !(job.status === "failed" || job.status === "cancelled");
    this.buttons.delete.hidden = !isOver(job);
    if (this.buttons.results.hidden) this.close();
  }

  /** How far it is: in the queue, or as the service or an event says it. */
  tell({ share, seconds_left: secondsLeft, position }) {
    if (this.job.status === "queued") {
      say(this.state, position === 1 ? "Next in the queue" : position ? `Number ${position} in the queue` : "Waiting");
      return;
    }
    if (Number.isFinite(share)) {
      if (share < this.share) return; // of a run what was asked for before the last event came
      this.share = this.progress.value = share;
    } else this.progress.removeAttribute("value");
    const left = Number.isFinite(secondsLeft) ? ` · about ${duration(secondsLeft)} left` : "";
    say(this.state, share > 0 ? `${Math.floor(100 * share)} %${left}` : "Starting");
  }

  button(text, click, kind = "") {
    return make("button", { type: "button", textContent: text, className: kind, on: { click } });
  }

  async act(method, action) {
    const buttons = Object.values(this.buttons);
    for (const button of buttons) button.disabled = true;
    say(this.refusal);
    if (action === "/cancel") say(this.state, "Stopping…");
    try {
      this.changed(await call(method, `${this.path}${action}`), this);
    } catch (error) {
      say(this.refusal, error.message);
    }
    for (const button of buttons) button.disabled = false;
  }

  async remove() {
    const dialog = byId("delete-dialog");
    const kept = this.job.files.length ? " with its results" : "";
    byId("delete-words").textContent = `${this.job.filename} is removed from the server${kept}. Nothing brings it back.`;
    dialog.returnValue = "";
    dialog.showModal();
    await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
    if (dialog.returnValue === "delete") await this.act("DELETE", "");
  }

  toggle() {
    if (!this.results.hidden) {
      this.close();
      return;
    }
    const { files, filename } = this.job;
    const urlOf = ({ name }) => `${this.path}/files/${name.split("/").map(encodeURIComponent).join("/")}`;
    this.results.replaceChildren(...[player(files, urlOf, filename), downloads(files, urlOf)].filter(Boolean));
    this.results.hidden = false;
    this.buttons.results.textContent = "Hide results";
    this.buttons.results.setAttribute("aria-expanded", "true");
  }

  close() {
    this.results.hidden = true;
    this.results.replaceChildren();
    this.buttons.results.textContent = "Show results";
    this.buttons.results.setAttribute("aria-expanded", "false");
  }
}

function downloads(files, urlOf) {
  const rows = files.map((file) =>
    make(
      "li",
      {},
      make("a", { href: urlOf(file), download: file.name, textContent: file.name }),
      make("span", { className: "quiet", textContent: bytes(file.bytes) }),
    ),
  );
  return make("ul", { className: "files", aria: { label: "Downloads" } }, ...rows);
}

/** A card of a file that is being sent; `stop` ends that. */
export function uploadCard(file, stop) {
  const progress = make("progress", { max: 1, value: 0, aria: { label: `Upload of ${file.name}` } });
  const state = make("p", { className: "state", textContent: "Waiting" });
  const error = make("p", { className: "error", role: "alert", hidden: true });
  const button = make("button", { type: "button", textContent: "Stop", on: { click: stop } });
  const element = make(
    "li",
    { className: "card" },
    make("div", { className: "head" }, make("h3", { textContent: file.name }), make("span", { className: "status", textContent: "Uploading" })),
    progress,
    error,
    make("div", { className: "foot" }, state, make("p", { className: "actions" }, button)),
  );
  element.dataset.status = "uploading";
  return {
    element,
    tell(share) {
      progress.value = share;
      say(state, share < 1 ? `${Math.floor(100 * share)} % of ${bytes(file.size)}` : "Sent; the service looks at it");
    },
    fail(sentence) {
      element.dataset.status = "failed";
      element.querySelector(".status").textContent = "Refused";
      progress.hidden = true;
      say(state);
      say(error, sentence);
      button.textContent = "Dismiss";
    },
  };
}

function detailsOf({ num_frames: numFrames, width, height, options, created }) {
  const at = new Date(created).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  const size = width && height ? `${width} × ${height}` : "";
  const frames = numFrames ? `${numFrames} frames` : "";
  return [at, size, frames, ...chosenOf(options)].filter(Boolean).join(" · ");
}

/** Options that are not the default ones, in words. */
function chosenOf(options) {
  const chosen = Object.entries(options).filter(([name, value]) => String(value) !== defaults.get(name));
  return chosen.map(([name, value]) => `${name.replaceAll("_", " ")} ${String(value).replaceAll(",", ", ")}`);
}

function tookOf({ status, started, ended }) {
  const seconds = (Date.parse(ended) - Date.parse(started)) / 1000;
  return status === "finished" && Number.isFinite(seconds) ? `Took ${duration(seconds)}` : "";
}
