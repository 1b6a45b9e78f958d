// The time between the end of a question and the first sound of its answer, at the user's ears.

import { RATE } from "./omni-client.js";

const KEPT = 10_000; // ms of sent sound of which the time is known

/**
 * Gives the entries of answers their time `heard` and keeps `measurements`: {response, heard,
 * timings}, in ms since the end of speech (or since the wish for an answer), where `timings` are
 * those of the server.
 */
export class Latency {
  measurements = [];
  #transcript;
  #sent = 0; // samples over this connection
  #pieces = []; // {end: sample, at: when it was captured}
  #origin = null; // when the last question ended
  #responses = new Map(); // id -> {origin, heard, timings}

  constructor(client, transcript) {
    this.#transcript = transcript;
    client.on("client.connected", () => {
      this.#sent = 0;
      this.#pieces = [];
      this.#origin = null;
    });
    client.on("input_audio_buffer.speech_stopped", ({ audio_end_ms: end }) => {
      this.#origin = this.#capturedAt((end / 1000) * RATE);
    });
    client.on("response.created", ({ response: { id } }) => {
      this.#responses.set(id, { origin: this.#origin });
      this.#origin = null;
    });
    client.on("response.done", ({ response: { id, timings } }) => this.#note(id, { timings }));
  }

  /** So many samples from the microphone were sent now. */
  sent(samples) {
    const now = performance.now();
    this.#sent += samples;
    this.#pieces.push({ end: this.#sent, at: now });
    while (this.#pieces[0].at < now - KEPT) this.#pieces.shift();
  }

  /** A question ended now: it was typed, or the button was released. */
  asked() {
    this.#origin = performance.now();
  }

  /** The first sample of an item leaves the speaker at that time. */
  heard(item, at) {
    const entry = this.#transcript.find(item);
    const { origin, heard } = this.#responses.get(entry?.response) ?? {};
    if (!origin || heard) return;
    entry.timings({ heard: at - origin });
    this.#note(entry.response, { heard: at - origin });
  }

  #note(id, more) {
    const known = this.#responses.get(id);
    if (!known) return;
    Object.assign(known, more);
    const { heard, timings } = known;
    if (heard && timings) this.measurements.push({ response: id, heard, timings });
  }

  #capturedAt(sample) {
    const piece = this.#pieces.find(({ end }) => end >= sample);
    return piece ? piece.at - ((piece.end - sample) / RATE) * 1000 : null;
  }
}
