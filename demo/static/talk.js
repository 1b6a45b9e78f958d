// The user's voice: hands-free, where the server finds the turns, or push to talk.

import { DeviceError, Microphone } from "./audio.js";
import { RATE } from "./omni-client.js";

const TAIL = 100; // ms that are still heard when the button is released: the last sound is on its way
const SHORTEST = 0.3; // s of sound that is a turn; less is a slip of the finger
const OPEN = 60_000; // ms for which the microphone stays open for the next push
const FLOOR = 50; // dB below full scale at which the level is 0

/**
 * `on` has what is called: `piece(pcm)` with sound that is sent, `level(0 to 1)`, `begin()` when the
 * user begins to speak, `finish()` at the end of the turn (of a push: before it is handed over),
 * `asked()` when a push is handed over, `cleared(item)` when the server drops a turn, `unplugged()`
 * when the microphone is gone, and `change()` whenever what it tells has changed.
 */
export class Talk {
  /** Id of the item that is being spoken, hands-free. */
  turn = null;
  muted = false;
  /** Push to talk: whether the button is held. */
  held = false;
  #push = false;
  #sending = false; // of a push: the button is held, or was until a moment ago
  #sent = 0; // samples of it
  #idle = 0;
  #client;
  #on;

  constructor({ client, device, on }) {
    this.#client = client;
    this.#on = on;
    this.microphone = new Microphone({
      device,
      onPiece: (pcm, level) => {
        on.level(Math.min(1, Math.max(0, 1 + (20 * Math.log10(level + 1e-9)) / FLOOR)));
        if (!this.#push || this.#sending) this.#send(pcm);
      },
      onEnd: () => this.#unplugged(),
    });
    client.on("input_audio_buffer.speech_started", ({ item_id: item }) => this.#begin(item));
    client.on("input_audio_buffer.speech_stopped", () => this.#finish());
    client.on("input_audio_buffer.committed", () => this.#over());
    client.on("input_audio_buffer.cleared", () => {
      const cleared = this.turn;
      this.#over();
      if (cleared) on.cleared(cleared);
    });
    client.on("client.disconnected", () => {
      this.held = this.#sending = false;
      this.#over();
    });
  }

  #send(pcm) {
    if (!this.#client.open) return;
    this.#client.sendAudio(pcm);
    this.#sent += pcm.length;
    this.#on.piece(pcm);
  }

  /** Whether the microphone is open. */
  get on() {
    return this.microphone.on;
  }

  /** Whether the user speaks. */
  get speaking() {
    return this.turn !== null || this.held;
  }

  get push() {
    return this.#push;
  }

  /** Whether the user holds a button while speaking. A change ends what is going on. */
  set push(push) {
    if (push === this.#push) return;
    this.hangUp();
    this.#push = push;
    // What the server still holds of before is no part of the first push; the settings go first.
    if (push) setTimeout(() => this.#client.clearAudio());
  }

  /** Hands-free: open the microphone. Throws a `DeviceError`. */
  start() {
    return this.microphone.start().finally(() => this.#on.change());
  }

  mute(muted) {
    this.muted = muted;
    this.microphone.mute(muted);
    this.#on.change();
  }

  hangUp() {
    clearTimeout(this.#idle);
    this.microphone.stop();
    this.muted = this.held = this.#sending = false;
    this.#on.level(0);
    // What was said so far is a turn: silence lets the server see its end.
    if (this.turn) this.#send(new Int16Array(1.5 * RATE));
    this.#on.change();
  }

  /** Push to talk: the button is held. Throws a `DeviceError`. */
  async press() {
    if (this.held) return;
    clearTimeout(this.#idle);
    this.held = this.#sending = true;
    this.#sent = 0;
    this.#on.begin();
    this.#on.change();
    if (this.on) return;
    try {
      await this.microphone.start();
    } catch (error) {
      this.held = this.#sending = false;
      throw error;
    } finally {
      this.#on.change();
    }
  }

  /** Push to talk: the button is released, and what was said is a turn. */
  async release() {
    if (!this.held) return;
    this.held = false;
    this.#idle = setTimeout(() => this.hangUp(), OPEN);
    this.#on.change();
    await new Promise((done) => setTimeout(done, TAIL));
    if (this.held || !this.#sending) return; // pressed again, or hung up
    this.#sending = false;
    if (this.#sent < SHORTEST * RATE) return void this.#client.clearAudio();
    this.#on.finish();
    this.#client.commit();
    this.#on.asked();
    this.#client.createResponse();
  }

  #begin(item) {
    this.turn = item;
    this.#on.begin();
    this.#on.change();
  }

  #finish() {
    this.#on.finish();
    this.#over();
  }

  #over() {
    this.turn = null;
    this.#on.change();
  }

  /** Another microphone takes its place, if there is one. */
  async #unplugged() {
    try {
      await this.microphone.start();
    } catch (error) {
      if (!(error instanceof DeviceError)) throw error;
      this.hangUp();
      this.#on.unplugged();
    }
  }
}
