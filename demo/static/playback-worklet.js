// Plays what it is given, in order, and knows how much of each item has been played.
//
// In:  {item, pcm} adds sound of an item; {end: item}: no more of it will come; {flush: id} drops
//      all that is left.
// Out: {item, played, left, over} now and then and when it runs dry, in samples; {item, began} with
//      the time of its first sample; {flushed: id, item, played, left} answers a flush, where `left`
//      is what was dropped.
//
// Sound starts with its first piece. When it runs dry before its end it waits until there is more in
// store, each time more. Where sound stops or starts in the middle it is faded, so that nothing
// clicks.

const REPORT_EVERY = 12; // blocks of 128 samples: 64 ms at 24 kHz
const RAMP = Math.round(0.004 * sampleRate);
const STORE = Math.round(0.1 * sampleRate); // samples to have before going on at first; it doubles
const MOST_STORE = 8 * STORE;
const PATIENCE = 2 * STORE; // samples of time beyond which it does not wait for the store

class Playback extends AudioWorkletProcessor {
  constructor() {
    super();
    this.port.onmessage = ({ data }) => this.take(data);
    this.item = null;
    this.store = 0; // samples to wait for after running dry
    this.clear();
    this.silent = true;
    this.rising = 0; // samples until it is as loud as it shall be
    this.last = 0; // the last sample of what was cut off,
    this.fading = 0; // and how many samples of its fading are left
    this.blocks = 0;
  }

  clear() {
    this.queue = [];
    this.left = 0;
    this.played = 0;
    this.over = false; // all of the current item has come
    this.starved = false;
    this.waited = 0;
  }

  take(data) {
    if ("flush" in data) return this.flush(data.flush);
    if ("end" in data) {
      const last = this.queue.findLast(({ item }) => item === data.end);
      if (last) last.over = true;
      else if (data.end === this.item) {
        this.over = true;
        this.report();
      }
      return;
    }
    if (!data.pcm.length) return;
    this.queue.push({ item: data.item, pcm: data.pcm, at: 0, over: false });
    this.left += data.pcm.length;
  }

  flush(id) {
    const [next] = this.queue;
    if (next && next.item !== this.item) {
      this.item = next.item; // dropped before its first sample
      this.played = 0;
    }
    this.report({ flushed: id });
    if (!this.silent) this.fading = RAMP;
    this.item = null;
    this.clear();
  }

  report(more = {}) {
    const { item, played, left, over } = this;
    this.port.postMessage({ item, played, left, over: over && left === 0, ...more });
  }

  /** Whether to play now, so many samples before the next time that this is asked. */
  mayPlay(length) {
    const [head] = this.queue;
    if (!head) return false;
    if (!this.starved || head.item !== this.item) return true;
    this.waited += length;
    const whole = this.queue.some(({ over, item }) => over || item !== this.item);
    return whole || this.left >= this.store || this.waited >= this.store + PATIENCE;
  }

  process(_, [[out]]) {
    const before = this.left;
    let written = 0;
    if (this.mayPlay(out.length)) {
      this.starved = false;
      this.waited = this.fading = 0;
      if (this.silent) this.rising = RAMP;
      while (written < out.length && this.queue.length) written += this.copy(out, written);
      for (let i = 0; i < written && this.rising; i++) out[i] *= 1 - this.rising-- / RAMP;
      this.last = out[written - 1];
      if (!this.left) this.fading = RAMP;
      if (!this.left && !this.over) {
        this.starved = true;
        this.store = Math.min(Math.max(2 * this.store, STORE), MOST_STORE);
      }
    }
    this.silent = written < out.length;
    for (let i = written; i < out.length && this.fading; i++) {
      out[i] = (this.last * this.fading--) / RAMP;
    }
    if (before && (this.left === 0 || ++this.blocks % REPORT_EVERY === 0)) this.report();
    return true;
  }

  /** Copy from the head of the queue. -> how many samples */
  copy(out, written) {
    const [head] = this.queue;
    if (head.item !== this.item) {
      this.item = head.item;
      this.played = 0;
      this.store = 0;
      const began = (currentFrame + written) / sampleRate;
      this.port.postMessage({ item: head.item, began });
    }
    const count = Math.min(out.length - written, head.pcm.length - head.at);
    out.set(head.pcm.subarray(head.at, head.at + count), written);
    head.at += count;
    this.played += count;
    this.left -= count;
    if (head.at === head.pcm.length) this.queue.shift();
    this.over = head.over && head.at === head.pcm.length;
    return count;
  }
}

registerProcessor("omni-playback", Playback);
