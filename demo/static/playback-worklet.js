// Plays what it is given, in order, and knows how much of each item has been played.
//
// In:  {item, pcm} adds sound of an item; {flush: id} drops all that is left.
// Out: {item, played, left} now and then and when it runs dry, in samples; {flushed: id, item,
//      played, left} answers a flush, where `left` is what was dropped.

const REPORT_EVERY = 12; // blocks of 128 samples: 64 ms at 24 kHz

class Playback extends AudioWorkletProcessor {
  constructor() {
    super();
    this.queue = [];
    this.left = 0;
    this.item = null;
    this.played = 0;
    this.blocks = 0;
    this.port.onmessage = ({ data }) => {
      if ("flush" in data) this.flush(data.flush);
      else {
        this.queue.push({ item: data.item, pcm: data.pcm, at: 0 });
        this.left += data.pcm.length;
      }
    };
  }

  flush(id) {
    const [next] = this.queue;
    if (next && next.item !== this.item) {
      this.item = next.item; // dropped before its first sample
      this.played = 0;
    }
    this.report({ flushed: id });
    this.queue = [];
    this.left = 0;
    this.item = null;
    this.played = 0;
  }

  report(more = {}) {
    this.port.postMessage({ item: this.item, played: this.played, left: this.left, ...more });
  }

  process(_, [[out]]) {
    const before = this.left;
    let written = 0;
    while (written < out.length && this.queue.length) {
      const head = this.queue[0];
      if (head.item !== this.item) {
        this.item = head.item;
        this.played = 0;
      }
      const count = Math.min(out.length - written, head.pcm.length - head.at);
      out.set(head.pcm.subarray(head.at, head.at + count), written);
      head.at += count;
      written += count;
      this.played += count;
      this.left -= count;
      if (head.at === head.pcm.length) this.queue.shift();
    }
    if (before && (this.left === 0 || ++this.blocks % REPORT_EVERY === 0)) this.report();
    return true;
  }
}

registerProcessor("omni-playback", Playback);
