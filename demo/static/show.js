// What the user shows while talking: the camera or the screen.

import { openDevice } from "./audio.js";
import { draw } from "./pictures.js";
import { translate } from "./i18n.js";

const EVERY = 1000; // ms between two frames while the user speaks
const SMALL = 640; // pixels of a side of those,
const SHARP = 1280; // and of the last one

/** What each source is opened with. */
const OPEN = {
  camera: (devices, facing) =>
    devices.getUserMedia({ video: { width: { ideal: SHARP }, facingMode: { ideal: facing } } }),
  screen: (devices) => devices.getDisplayMedia({ video: { frameRate: 5 }, audio: false }),
};

/**
 * `section` has the preview; `speaking()` says whether frames are of use now, `turn()` gives the id
 * of the item that is being spoken, where it is known.
 */
export class Show {
  /** "camera", "screen" or null. */
  source = null;
  #stream = null;
  #attempt = null;
  #facing = "environment";
  #latest = null; // frame of the turn
  #section;
  #client;
  #transcript;
  #turn;
  #onChange;

  constructor(section, { client, transcript, speaking, turn, onChange }) {
    this.#section = section;
    this.#client = client;
    this.#transcript = transcript;
    this.#turn = turn;
    this.#onChange = onChange;
    this.video = section.querySelector("video");
    client.on("input_audio_buffer.committed", ({ item_id: item }) => {
      if (this.#latest) transcript.entry("user", item).frame(this.#latest);
      this.#latest = null;
    });
    setInterval(() => speaking() && this.send(), EVERY);
  }

  static get canShare() {
    return Boolean(navigator.mediaDevices?.getDisplayMedia) || !window.isSecureContext;
  }

  /** Show the camera or the screen, in place of what is shown; a second time it ends. */
  async toggle(source) {
    if (this.source === source) return this.stop();
    this.stop();
    const attempt = (this.#attempt = {});
    const stream = await this.#open(source);
    if (!stream) return;
    const cameras = (await navigator.mediaDevices.enumerateDevices()).filter(
      ({ kind }) => kind === "videoinput",
    );
    if (attempt !== this.#attempt) return end(stream);
    this.source = source;
    this.#stream = this.video.srcObject = stream;
    stream.getVideoTracks()[0].onended = () => stream === this.#stream && this.stop();
    this.#section.querySelector("button").hidden = source === "screen" || cameras.length < 2;
    const label = source === "camera" ? "cameraSees" : "screenSees";
    this.video.dataset.tLabel = this.#section.dataset.tLabel = label;
    translate(this.#section);
    this.#onChange();
    await this.video.play().catch(() => {}); // it plays by itself, and may be gone by now
  }

  async #open(source) {
    try {
      return await openDevice(source, (devices) => OPEN[source](devices, this.#facing));
    } catch (error) {
      const { name, message } = error.cause ?? {};
      // Who closes the choice of screens knows that nothing is shared.
      if (source === "screen" && name === "NotAllowedError" && !/system/i.test(message)) return null;
      throw error;
    }
  }

  /** The other camera of a phone. */
  async turnRound() {
    this.#facing = this.#facing === "user" ? "environment" : "user";
    this.stop();
    await this.toggle("camera");
  }

  stop() {
    end(this.#stream);
    this.source = this.#attempt = this.#stream = this.video.srcObject = null;
    this.#onChange();
  }

  /** What is shown now, as data URL; null before the first picture. */
  frame(longest = SHARP) {
    const { videoWidth, videoHeight } = this.video;
    return this.source && videoWidth ? draw(this.video, videoWidth, videoHeight, longest) : null;
  }

  /** Send what is shown now; `sharp` at the end of a turn. */
  send({ sharp = false } = {}) {
    const frame = this.frame(sharp ? SHARP : SMALL);
    if (!frame) return;
    this.#client.sendImage(frame);
    this.#latest = frame;
    const turn = this.#turn();
    if (turn) this.#transcript.entry("user", turn).frame(frame);
  }
}

function end(stream) {
  for (const track of stream?.getTracks() ?? []) track.stop();
}
