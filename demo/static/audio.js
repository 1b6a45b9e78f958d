// The microphone and the speaker of the page.

import { t } from "./i18n.js";
import { RATE } from "./omni-client.js";

const file = (name) => new URL(name, import.meta.url);

/** Thrown when a device cannot be had, with words for the user. */
export class DeviceError extends Error {}

const REASONS = {
  NotAllowedError: "deviceRefused",
  NotFoundError: "deviceMissing",
  OverconstrainedError: "deviceMissing",
  NotReadableError: "deviceBusy",
};

/** What `open(navigator.mediaDevices)` gives; `what` is "microphone", "camera" or "screen". */
export async function openDevice(what, open) {
  const name = t(`${what}Word`);
  if (!window.isSecureContext || !navigator.mediaDevices) {
    throw new DeviceError(t("insecure", { what: name, port: location.port || 80 }));
  }
  try {
    return await open(navigator.mediaDevices);
  } catch (error) {
    const key = REASONS[error.name] ?? "deviceFailed";
    const words = t(key, { what: name, reason: error.message });
    throw Object.assign(new DeviceError(words), { cause: error });
  }
}

/**
 * Calls `onPiece(Int16Array, level)` for every 20 ms of sound at 24 kHz, and `onEnd` if it is pulled
 * out. `device()` gives the id of the one to use, or null.
 */
export class Microphone {
  #stream = null;
  #context = null;
  #attempt = null;
  #muted = false;

  constructor({ onPiece, onEnd, device = () => null }) {
    this.onPiece = onPiece;
    this.onEnd = onEnd;
    this.device = device;
  }

  get on() {
    return Boolean(this.#stream);
  }

  /** The id of the device that is heard. */
  get current() {
    return this.#stream?.getAudioTracks()[0].getSettings().deviceId ?? null;
  }

  /** Open the chosen device, in place of the one that is open. A `stop` meanwhile wins. */
  async start() {
    const attempt = (this.#attempt = {});
    const wanted = this.device();
    const stream = await openDevice("microphone", (devices) =>
      devices.getUserMedia({
        audio: {
          channelCount: 1,
          echoCancellation: true,
          noiseSuppression: true,
          autoGainControl: true,
          ...(wanted && { deviceId: { ideal: wanted } }),
        },
      }),
    );
    const context = new AudioContext({ latencyHint: "interactive" });
    try {
      await context.audioWorklet.addModule(file("capture-worklet.js"));
      await context.resume();
    } catch (error) {
      close(stream, context);
      const reason = error.message;
      throw new DeviceError(t("deviceFailed", { what: t("microphoneWord"), reason }));
    }
    if (attempt !== this.#attempt) return close(stream, context);
    close(this.#stream, this.#context);
    this.#stream = stream;
    this.#context = context;
    this.mute(this.#muted);
    const node = new AudioWorkletNode(context, "omni-capture");
    node.port.onmessage = ({ data: { pcm, level } }) => {
      if (stream !== this.#stream) return;
      if (this.#muted) this.onPiece(pcm.fill(0), 0);
      else this.onPiece(pcm, level);
    };
    context.createMediaStreamSource(stream).connect(node);
    node.connect(context.destination); // it stays silent, but only connected nodes run
    stream.getAudioTracks()[0].onended = () => stream === this.#stream && this.onEnd();
  }

  /** A muted microphone sends silence, so that the server still sees a turn end. */
  mute(muted) {
    this.#muted = muted;
    for (const track of this.#stream?.getAudioTracks() ?? []) track.enabled = !muted;
  }

  stop() {
    close(this.#stream, this.#context);
    this.#attempt = this.#stream = this.#context = null;
    this.#muted = false;
  }
}

function close(stream, context) {
  for (const track of stream?.getTracks() ?? []) track.stop();
  context?.close();
}

/**
 * Plays items of speech in order. `onChange({item, played, left, over})` follows it, in samples;
 * `onFirst(item, at)` tells when the first sample of an item leaves the speaker, on the clock of
 * `performance.now()`. `device()` gives the id of the one to use, or null.
 */
export class Speaker {
  #ready = null;
  #node = null;
  #flushes = new Map();

  constructor({ onChange, onFirst = () => {}, device = () => null }) {
    this.onChange = onChange;
    this.onFirst = onFirst;
    this.device = device;
  }

  /** Whether another output than the system's default can be chosen here. */
  static get canChoose() {
    return "setSinkId" in AudioContext.prototype;
  }

  /** Seconds between the worklet and the ear. */
  get #latency() {
    return this.context.outputLatency || this.context.baseLatency || 0;
  }

  /** To be called within a click or key press: browsers allow sound only after one. */
  start() {
    if (!this.#ready) {
      this.context = new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
      this.#ready = this.#load();
    }
    this.context.resume();
    return this.#ready;
  }

  async #load() {
    await this.context.audioWorklet.addModule(file("playback-worklet.js"));
    const node = new AudioWorkletNode(this.context, "omni-playback", {
      numberOfInputs: 0,
      outputChannelCount: [1],
    });
    node.port.onmessage = ({ data }) => this.#told(data);
    node.connect(this.context.destination);
    this.#node = node;
    await this.choose();
  }

  #told(data) {
    if ("began" in data) {
      const wait = data.began - this.context.currentTime + this.#latency;
      this.onFirst(data.item, performance.now() + wait * 1000);
    } else if ("flushed" in data) {
      this.onChange({ ...data, left: 0, over: true }); // the last word: reports may cross a flush
      this.#flushes.get(data.flushed)(data);
      this.#flushes.delete(data.flushed);
    } else {
      const played = Math.max(0, data.played - Math.round(this.#latency * RATE));
      this.onChange({ ...data, played });
    }
  }

  async play(item, pcm) {
    await this.start();
    this.#node.port.postMessage({ item, pcm }, [pcm.buffer]);
  }

  /** No more sound of an item will come. */
  async end(item) {
    await this.#ready;
    this.#node?.port.postMessage({ end: item });
  }

  /** Use the chosen device; the system's default where it is not there. */
  async choose() {
    if (!this.context || !Speaker.canChoose) return;
    const id = this.device() ?? "";
    if (this.context.sinkId === id) return;
    await this.context.setSinkId(id).catch(() => this.context.setSinkId(""));
  }

  /** Fall silent. -> {item, heard, left}: the item that was on, and ms of it heard and dropped. */
  async flush() {
    if (!this.#ready) return { item: null, heard: 0, left: 0 };
    await this.#ready;
    const id = crypto.getRandomValues(new Uint32Array(1))[0];
    const { item, played, left } = await new Promise((done) => {
      this.#flushes.set(id, done);
      this.#node.port.postMessage({ flush: id });
    });
    const heard = Math.max(0, Math.round((played / RATE - this.#latency) * 1000));
    return { item, heard, left: (left / RATE) * 1000 };
  }
}
