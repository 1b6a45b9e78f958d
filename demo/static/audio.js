// The microphone and the speaker of the page.

const RATE = 24000;
const file = (name) => new URL(name, import.meta.url);

/** Thrown by `start` of the microphone and the camera, with words for the user. */
export class DeviceError extends Error {}

const REASONS = {
  NotAllowedError: (what) =>
    `The browser refused the ${what}. Allow it for this page (the icon beside the address) and try again.`,
  NotFoundError: (what) => `No ${what} was found. Plug one in and try again.`,
  NotReadableError: (what) => `The ${what} cannot be opened; another program may be using it.`,
};

export async function openDevice(what, constraints) {
  if (!window.isSecureContext || !navigator.mediaDevices) {
    throw new DeviceError(
      `Browsers give the ${what} only to secure pages. Open this page over https, or on the ` +
        `server's own machine at http://localhost:${location.port || 80} (an SSH tunnel does). Typing works here.`,
    );
  }
  try {
    return await navigator.mediaDevices.getUserMedia(constraints);
  } catch (error) {
    const reason = REASONS[error.name];
    throw new DeviceError(reason ? reason(what) : `The ${what} failed: ${error.message}`);
  }
}

/** Calls `onPiece(Int16Array, level)` for every 40 ms of sound at 24 kHz, and `onEnd` if it is pulled out. */
export class Microphone {
  constructor(onPiece, onEnd) {
    this.onPiece = onPiece;
    this.onEnd = onEnd;
  }

  get on() {
    return Boolean(this.stream);
  }

  async start() {
    this.stream = await openDevice("microphone", {
      audio: {
        channelCount: 1,
        echoCancellation: true,
        noiseSuppression: true,
        autoGainControl: true,
      },
    });
    try {
      this.context = new AudioContext({ latencyHint: "interactive" });
      await this.context.audioWorklet.addModule(file("capture-worklet.js"));
      const node = new AudioWorkletNode(this.context, "omni-capture");
      node.port.onmessage = ({ data }) => this.on && this.onPiece(data.pcm, data.level);
      this.context.createMediaStreamSource(this.stream).connect(node);
      node.connect(this.context.destination); // it stays silent, but only connected nodes run
      await this.context.resume();
      this.stream.getAudioTracks()[0].onended = () => this.onEnd();
    } catch (error) {
      this.stop();
      throw new DeviceError(`The microphone failed: ${error.message}`);
    }
  }

  /** A muted microphone sends silence, so that the server still sees a turn end. */
  mute(muted) {
    for (const track of this.stream?.getAudioTracks() ?? []) track.enabled = !muted;
  }

  stop() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.context?.close();
    this.stream = this.context = null;
  }
}

/** Plays items of speech in order; `onChange({item, played, left})` follows it, in samples. */
export class Speaker {
  #ready = null;
  #node = null;
  #flushes = new Map();

  constructor(onChange) {
    this.onChange = onChange;
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
    node.port.onmessage = ({ data }) => {
      if (!("flushed" in data)) return this.onChange(data);
      this.onChange({ ...data, left: 0 }); // the last word: reports may cross a flush
      this.#flushes.get(data.flushed)(data);
      this.#flushes.delete(data.flushed);
    };
    node.connect(this.context.destination);
    this.#node = node;
  }

  async play(item, pcm) {
    await this.start();
    this.#node.port.postMessage({ item, pcm }, [pcm.buffer]);
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
    const latency = this.context.outputLatency || this.context.baseLatency || 0;
    const heard = Math.max(0, Math.round((played / RATE - latency) * 1000));
    return { item, heard, left: (left / RATE) * 1000 };
  }
}
