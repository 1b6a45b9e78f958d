// The answers: heard while they are made, and silenced when the user wants.

import { Speaker } from "./audio.js";
import { t } from "./i18n.js";
import { decodePcm, toPcm16 } from "./omni-client.js";

/** `onChange()` follows it, `say(text)` tells what went wrong, `device()` is that of `Speaker`. */
export class Answers {
  /** Whether one is being heard. */
  playing = false;
  /** Ids of responses of which nothing more shall be heard or seen. */
  stopped = new Set();
  #making = null; // id of the response that is being made
  #client;
  #transcript;
  #onChange;

  constructor({ client, transcript, latency, device, onChange, say }) {
    this.#client = client;
    this.#transcript = transcript;
    this.#onChange = onChange;
    this.speaker = new Speaker({
      device,
      onChange: (report) => {
        this.playing = !report.over;
        transcript.heard(report);
        onChange();
      },
      onFirst: (item, at) => latency.heard(item, at),
    });
    client.on("response.created", ({ response: { id } }) => {
      this.#making = id;
      onChange();
    });
    client.on("response.output_audio.delta", (event) => this.#hear(event));
    client.on("response.output_audio.done", ({ item_id: item }) => this.speaker.end(item));
    client.on("response.done", ({ response }) => {
      if (this.#making === response.id) this.#making = null;
      for (const [item] of transcript.ofResponse(response.id)) this.speaker.end(item);
      if (response.status === "failed") {
        say(response.status_details?.error?.message ?? t("answerFailed"));
      }
      onChange();
    });
    client.on("client.disconnected", () => this.#breakOff());
  }

  /** Whether one is being made. */
  get making() {
    return this.#making !== null;
  }

  get busy() {
    return this.making || this.playing;
  }

  /** Silence at once, and the server learns what was heard. */
  async interrupt() {
    const making = this.#making;
    if (making) this.stopped.add(making);
    this.playing = false;
    const { item, heard, left } = await this.speaker.flush();
    const entry = item && this.#transcript.find(item);
    if (entry && (left > 0 || entry.response === making)) {
      this.#client.truncate(item, Math.min(heard, Math.floor(entry.received)));
      entry.cut(heard);
    }
    this.#onChange();
  }

  /** The user does not want the rest. */
  stop() {
    if (this.#making) this.#client.cancel(this.#making);
    return this.interrupt();
  }

  /** Another conversation begins. */
  async drop() {
    this.#making = null;
    this.playing = false;
    await this.speaker.flush();
  }

  #hear({ response_id: response, item_id: item, delta, clause }) {
    if (this.stopped.has(response)) return;
    const pcm = decodePcm(delta);
    const entry = this.#transcript.entry("assistant", item);
    entry.response = response;
    entry.speech(toPcm16(pcm), clause);
    if (!pcm.length) return;
    this.playing = true;
    this.speaker.play(item, pcm);
    this.#onChange();
  }

  #breakOff() {
    const entries = this.#making ? this.#transcript.ofResponse(this.#making) : [];
    for (const [item, entry] of entries) {
      entry.end();
      if (entry.used) entry.remark?.("brokenOff");
      else this.#transcript.remove(item);
    }
    this.drop();
  }
}
