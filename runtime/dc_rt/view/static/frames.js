// All frames: packed ones as Blobs, which the browser keeps outside the memory of the page; decoded ones within a budget.
"use strict";

class Frames {
  /**
   * `about` is what the file says of itself. `unpacker` is the source of the worker, `onready` is called with the number
   * of a frame that has been decoded, `onfault` with that of one that cannot be. `budget` is in bytes.
   */
  constructor(about, unpacker, onready, onfault, budget = 96e6) {
    this.about = about;
    this.onready = onready;
    this.onfault = onfault;
    this.budget = budget;
    this.packed = [];
    this.decoded = new Map(); // the least recently used first
    this.faults = new Map();
    this.wanted = [];
    this.waiting = new Map();
    this.busy = new Set();
    const url = URL.createObjectURL(new Blob([unpacker], { type: "text/javascript" }));
    this.idle = Array.from({ length: Math.min(2, navigator.hardwareConcurrency || 1) }, () => this.#start(url));
  }

  /** Take the next frame: its depth and its picture in base64, with a space between them. */
  add(text) {
    const index = this.packed.length;
    try {
      const [depth, picture] = text.trim().split(" ").map(Frames.#blob);
      this.packed.push({ depth, picture });
    } catch {
      this.packed.push(null);
      this.#fail(index, "it is not as it was written");
    }
    this.#decode();
  }

  /** A decoded frame, `{values, image}`; undefined where it is not there yet. */
  peek(index) {
    const frame = this.decoded.get(index);
    if (frame) {
      this.decoded.delete(index);
      this.decoded.set(index, frame);
    }
    return frame;
  }

  /** Have these decoded, the first first, and nothing else that has not begun. */
  want(indices) {
    this.wanted = indices;
    this.#decode();
  }

  /** A frame as soon as it is decoded. Whoever takes it copies what is to last: its picture is closed when it is old. */
  load(index) {
    const frame = this.peek(index);
    if (frame) return Promise.resolve(frame);
    if (this.faults.has(index)) return Promise.reject(new Error(this.faults.get(index)));
    return new Promise((resolve, reject) => {
      this.waiting.set(index, [...(this.waiting.get(index) ?? []), { resolve, reject }]);
      this.#decode();
    });
  }

  /** Bytes of what is decoded. */
  get bytes() {
    return this.decoded.size * this.#bytesOfOne;
  }

  get #bytesOfOne() {
    return this.about.width * this.about.height * (2 + 4); // 16 bits of depth, and the picture as RGBA
  }

  #start(url) {
    const worker = new Worker(url);
    worker.onmessage = ({ data }) => {
      this.busy.delete(data.index);
      this.idle.push(worker);
      if (data.error) this.#fail(data.index, data.error);
      else this.#keep(data.index, { values: data.values, image: data.image });
      this.#decode();
    };
    return worker;
  }

  #decode() {
    for (const index of [...this.wanted, ...this.waiting.keys()]) {
      if (!this.idle.length) return;
      const packed = this.packed[index];
      if (!packed || this.decoded.has(index) || this.busy.has(index) || this.faults.has(index)) continue;
      const { width, height, bits } = this.about;
      this.busy.add(index);
      this.idle.pop().postMessage({ index, ...packed, width, height, bits });
    }
  }

  #keep(index, frame) {
    this.decoded.set(index, frame);
    for (const { resolve } of this.waiting.get(index) ?? []) resolve(frame);
    this.waiting.delete(index);
    const room = Math.max(3, Math.floor(this.budget / this.#bytesOfOne));
    for (const [old, { image }] of this.decoded) {
      if (this.decoded.size <= room) break;
      if (old === index || old === this.wanted[0]) continue;
      this.decoded.delete(old);
      image.close();
    }
    this.onready(index);
  }

  #fail(index, reason) {
    this.faults.set(index, reason);
    for (const { reject } of this.waiting.get(index) ?? []) reject(new Error(reason));
    this.waiting.delete(index);
    this.onfault(index);
  }

  /** How many frames ahead may be decoded without driving out the one that is shown. */
  get ahead() {
    return Math.min(12, Math.max(1, Math.floor(this.budget / this.#bytesOfOne) - 3));
  }

  static #blob(text) {
    const binary = atob(text);
    const bytes = new Uint8Array(binary.length);
    for (let index = 0; index < binary.length; index++) bytes[index] = binary.charCodeAt(index);
    return new Blob([bytes]);
  }
}
