// What is shown when: frames at their own times, which need not be evenly apart.
"use strict";

// A tab that was hidden, or a slow card, goes on from where it was, not from where it would be.
const LONGEST_STEP = 0.25;

class Player {
  /** `times` are seconds, one a frame, and `end` is when the last has been shown. `isReady` says whether a frame can be
   * shown, `onframe` is called with the number of the frame that is to be shown. */
  constructor(times, end, isReady, onframe) {
    this.times = times;
    this.end = end;
    this.isReady = isReady;
    this.onframe = onframe;
    this.index = 0;
    this.time = times[0];
    this.speed = 1;
    this.isPlaying = false;
    this.repeats = true;
  }

  play() {
    if (this.index === this.times.length - 1 && !this.repeats) this.seek(0);
    this.isPlaying = this.times.length > 1;
    this.last = undefined;
  }

  pause() {
    this.isPlaying = false;
  }

  /** Go to a frame. */
  seek(index) {
    this.index = Math.min(Math.max(index, 0), this.times.length - 1);
    this.time = this.times[this.index];
    this.onframe(this.index);
  }

  /** Go on to `now`, in seconds of any clock. The clock of the video waits for a frame that is not there yet. */
  tick(now) {
    const step = Math.min(now - (this.last ?? now), LONGEST_STEP) * this.speed;
    this.last = now;
    if (!this.isPlaying || !this.isReady(this.index)) return;
    this.time += step;
    if (this.time >= this.end) {
      if (!this.repeats) this.pause();
      this.seek(this.repeats ? 0 : this.index);
      return;
    }
    let index = this.index;
    while (index + 1 < this.times.length && this.times[index + 1] <= this.time) index++;
    if (index === this.index) return;
    this.index = index;
    if (!this.isReady(index)) this.time = this.times[index];
    this.onframe(index);
  }
}
