// The page: it adds videos to the queue, and shows what becomes of them.

import { call, onUnauthorized, upload } from "./api.js";
import { announce, byId, bytes, say } from "./dom.js";
import { optionFields } from "./form.js";
import { Card, STATUSES, isOver, knowDefaults, uploadCard } from "./jobs.js";

const POLL_MS = 2000;
const PAGE = 50;
// Streams at once: browsers open six connections to a server, and the page needs some for itself.
const MOST_STREAMS = 3;

const cards = new Map();
const streams = new Map();
const lastIds = new Map();
let chosen = () => ({});
let mostBytes = Infinity;
let shownPages = 1;
let numChanges = 0;

// Adding

async function loadOptions() {
  try {
    const { options, limits, has_roots: hasRoots, suffixes } = await call("GET", "/options");
    chosen = optionFields(options, byId("options"));
    knowDefaults(options);
    mostBytes = limits.max_upload_bytes ?? Infinity;
    byId("file").accept = ["video/*", ...suffixes].join();
    byId("on-server").hidden = !hasRoots;
    say(byId("options-error"));
  } catch (error) {
    say(byId("options-error"), error.message);
    setTimeout(loadOptions, POLL_MS);
  }
}

let uploading = Promise.resolve();

/** One after the other, each with the options of this instant. */
function addFiles(files) {
  const options = chosen();
  for (const file of files) {
    const stopped = new AbortController();
    const card = uploadCard(file, () => {
      stopped.abort();
      card.element.remove();
    });
    byId("uploads").prepend(card.element);
    byId("empty").hidden = true;
    if (file.size > mostBytes) {
      card.fail(`${file.name} has ${bytes(file.size)}, and this service takes ${bytes(mostBytes)} at most.`);
      continue;
    }
    uploading = uploading.then(() => send(file, options, card, stopped.signal));
  }
}

async function send(file, options, card, signal) {
  try {
    const job = await upload(file, options, card.tell, signal);
    card.element.remove();
    changed(job);
    announce(`${job.filename} is in the queue.`);
  } catch (error) {
    if (!signal.aborted) card.fail(error.status === 0 ? "The connection broke off before all was sent; try again." : error.message);
  }
}

function acceptDrops() {
  let depth = 0; // of elements entered: leaving one for its child is not leaving
  const isFiles = (event) => event.dataTransfer?.types.includes("Files");
  const mark = () => document.body.classList.toggle("dropping", depth > 0);
  addEventListener("dragenter", (event) => isFiles(event) && (depth++, mark()));
  addEventListener("dragleave", (event) => isFiles(event) && (depth--, mark()));
  addEventListener("dragover", (event) => isFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!isFiles(event)) return;
    event.preventDefault();
    depth = 0;
    mark();
    addFiles(event.dataTransfer.files);
  });
  byId("file").addEventListener("change", ({ target }) => {
    addFiles([...target.files]);
    target.value = "";
  });
  byId("path-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    say(byId("path-error"));
    try {
      changed(await call("POST", "/jobs", { path: byId("path").value.trim(), options: chosen() }));
      byId("path").value = "";
    } catch (error) {
      say(byId("path-error"), error.message);
    }
  });
}

// Watching

async function poll() {
  try {
    const before = numChanges;
    const jobs = await listed();
    if (numChanges === before) show(jobs); // else it may say what was so before
    say(byId("banner"));
  } catch (error) {
    say(byId("banner"), error.status === 0 ? `${error.message} This page tries again by itself.` : error.message);
  }
  setTimeout(poll, POLL_MS); // of a page that is hidden, browsers call it less often
}

async function listed() {
  const jobs = [];
  let next = "";
  for (let page = 0; page < shownPages && next !== null; page++) {
    const answer = await call("GET", `/jobs?${new URLSearchParams({ limit: PAGE, ...(next && { after: next }) })}`);
    jobs.push(...answer.jobs);
    next = answer.next;
  }
  byId("older").hidden = next === null;
  return jobs;
}

function show(jobs) {
  const known = new Set(jobs.map(({ id }) => id));
  for (const id of [...cards.keys()].filter((id) => !known.has(id))) remove(id);
  const list = byId("jobs");
  jobs.forEach((job, index) => {
    const { element } = shown(job);
    if (list.children[index] !== element) list.insertBefore(element, list.children[index] ?? null);
  });
  byId("empty").hidden = Boolean(jobs.length || byId("uploads").children.length);
  summarize();
}

/** The card of a job, made where there is none, as the job is now. */
function shown(job) {
  const before = cards.get(job.id);
  if (before && isOver(job) && !isOver(before.job)) announce(`${job.filename}: ${STATUSES[job.status]}.`);
  if (before) before.show(job);
  else cards.set(job.id, new Card(job, changed));
  if (job.status === "running" && !streams.has(job.id) && streams.size < MOST_STREAMS) follow(job.id);
  return cards.get(job.id);
}

/** A job is new, or other than it was; null where that of `card` was deleted. */
function changed(job, card) {
  numChanges++;
  if (!job) {
    remove(card.job.id);
    if (document.activeElement === document.body) byId("queue-title").focus(); // what had it is gone
    announce(`${card.job.filename} was deleted.`);
    return;
  }
  const isNew = !cards.has(job.id);
  const { element } = shown(job);
  if (isNew) byId("jobs").prepend(element);
  summarize();
}

function remove(id) {
  streams.get(id)?.close();
  streams.delete(id);
  cards.get(id)?.element.remove();
  cards.delete(id);
  lastIds.delete(id);
  byId("empty").hidden = Boolean(cards.size || byId("uploads").children.length);
}

/** Follow the events of a running job to its end; a stream that breaks off is taken up where it was. */
function follow(id) {
  const path = `/jobs/${encodeURIComponent(id)}`;
  const after = lastIds.has(id) ? `?last_event_id=${lastIds.get(id)}` : "";
  const stream = new EventSource(`${path}/events${after}`);
  streams.set(id, stream);
  const over = () => {
    stream.close();
    streams.delete(id);
  };
  const heard = ({ lastEventId }) => lastIds.set(id, lastEventId);
  stream.addEventListener("Progress", (event) => {
    heard(event);
    cards.get(id)?.tell(JSON.parse(event.data));
  });
  stream.addEventListener("Status", async (event) => {
    heard(event);
    const job = await call("GET", path).catch(() => null); // of a list of events that begins long ago, the state now
    if (!job || !cards.has(id)) return;
    if (isOver(job)) over();
    shown(job);
    summarize();
  });
  // Where it is refused, the list of jobs, which is asked for all the while, has it followed anew.
  stream.addEventListener("error", () => stream.readyState === EventSource.CLOSED && over());
}

/** In the heading, and in the title, which is read when the page is behind others. */
function summarize() {
  const jobs = [...cards.values()].map(({ job }) => job);
  const count = (status) => jobs.filter((job) => job.status === status).length;
  const parts = ["running", "queued"].filter(count).map((status) => `${count(status)} ${status}`);
  byId("summary").textContent = parts.join(", ");
  document.title = parts.length ? `(${parts.join(", ")}) DepthCrafter-RT` : "DepthCrafter-RT";
}

// Token

async function askForToken(sentence) {
  const dialog = byId("token-dialog");
  say(byId("token-error"), sentence);
  byId("token").value = "";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  return byId("token").value.trim();
}

onUnauthorized(askForToken);
byId("token-dialog").addEventListener("cancel", (event) => event.preventDefault()); // nothing works without one
byId("older").addEventListener("click", () => shownPages++);
if (matchMedia("(max-width: 52rem)").matches) byId("options-box").open = false; // the videos come first there
acceptDrops();
loadOptions();
poll();
