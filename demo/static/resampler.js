// Streaming resampler: a windowed sinc that also cuts what the lower rate cannot hold.

const ZERO_CROSSINGS = 16;
const STEPS = 256; // table entries per zero crossing; between them it is linear

// sinc(x) under a Blackman window, for x from 0 to ZERO_CROSSINGS
const TABLE = Float32Array.from({ length: ZERO_CROSSINGS * STEPS + 2 }, (_, i) => {
  const x = i / STEPS;
  if (x >= ZERO_CROSSINGS) return 0;
  const phase = (Math.PI * x) / ZERO_CROSSINGS;
  const window = 0.42 + 0.5 * Math.cos(phase) + 0.08 * Math.cos(2 * phase);
  return window * (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
});

export class Resampler {
  constructor(from, to) {
    this.step = from / to; // input samples per output sample
    this.cutoff = Math.min(1, to / from) * 0.94; // of the input's Nyquist frequency
    this.half = Math.ceil(ZERO_CROSSINGS / this.cutoff);
    this.kept = new Float32Array(this.half); // silence before the first sample
    this.position = this.half; // of the next output sample, in `kept` and what follows
  }

  /** Float32Array at the input's rate -> all that can be computed of it at the output's rate. */
  feed(input) {
    const data = new Float32Array(this.kept.length + input.length);
    data.set(this.kept);
    data.set(input, this.kept.length);
    const output = [];
    while (this.position + this.half < data.length) {
      output.push(this.#at(data, this.position));
      this.position += this.step;
    }
    const used = Math.max(0, Math.floor(this.position) - this.half);
    this.kept = data.slice(used);
    this.position -= used;
    return Float32Array.from(output);
  }

  #at(data, position) {
    const first = Math.max(0, Math.ceil(position - this.half));
    const last = Math.floor(position + this.half);
    let sum = 0;
    for (let i = first; i <= last; i++) {
      const x = Math.abs(i - position) * this.cutoff * STEPS;
      const entry = Math.floor(x);
      if (entry >= ZERO_CROSSINGS * STEPS) continue;
      const low = TABLE[entry];
      sum += data[i] * (low + (x - entry) * (TABLE[entry + 1] - low));
    }
    return sum * this.cutoff;
  }
}
