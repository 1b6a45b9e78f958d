// Microphone at the device's rate -> 20 ms pieces of PCM16 at 24 kHz, each with its loudness.

import { Resampler } from "./resampler.js";

const RATE = 24000;
const PIECE = 480;

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = sampleRate === RATE ? null : new Resampler(sampleRate, RATE);
    this.piece = new Int16Array(PIECE);
    this.filled = 0;
    this.energy = 0;
  }

  process([channels]) {
    const input = channels[0];
    if (!input) return true; // the microphone is not there yet
    for (const sample of this.resampler ? this.resampler.feed(input) : input) {
      this.piece[this.filled++] = Math.max(-1, Math.min(1, sample)) * 32767;
      this.energy += sample * sample;
      if (this.filled === PIECE) this.deliver();
    }
    return true;
  }

  deliver() {
    const level = Math.sqrt(this.energy / PIECE);
    this.port.postMessage({ pcm: this.piece, level }, [this.piece.buffer]);
    this.piece = new Int16Array(PIECE);
    this.filled = 0;
    this.energy = 0;
  }
}

registerProcessor("omni-capture", Capture);
