// What was said, to take away: text, JSON, Markdown and sound.

import { t } from "./i18n.js";
import { RATE, toPcm16 } from "./omni-client.js";

const PREROLL = 0.6; // s of sound before speech is noticed that belong to it
const PAUSE = 0.3; // s between two turns in a file of sound

/** Keeps the sound of what the user says, turn by turn, in the entries of the transcript. */
export class Recorder {
  #recent = []; // pieces
  #length = 0; // samples in them
  #entry = null;

  constructor(client, transcript) {
    const begin = ({ item_id: id }) => {
      this.#entry = transcript.entry("user", id);
      this.#entry.pcm.push(...this.#take());
    };
    client.on("input_audio_buffer.speech_started", begin);
    client.on("input_audio_buffer.speech_stopped", () => (this.#entry = null));
    client.on("input_audio_buffer.cleared", () => {
      this.#take();
      this.#entry = null;
    });
    client.on("input_audio_buffer.committed", (event) => {
      if (this.holding) begin(event);
      this.#entry = null;
    });
  }

  /** Whether all sound belongs to the turn that the user will commit: push to talk. */
  holding = false;

  /** A piece of sound that is sent to the server, Int16Array at 24 kHz. */
  feed(pcm) {
    if (this.#entry) return void this.#entry.pcm.push(pcm);
    this.#recent.push(pcm);
    this.#length += pcm.length;
    while (!this.holding && this.#length - this.#recent[0].length > PREROLL * RATE) {
      this.#length -= this.#recent.shift().length;
    }
  }

  #take() {
    const pieces = this.#recent;
    this.#recent = [];
    this.#length = 0;
    return pieces;
  }
}

const speaker = (role) => t(role === "user" ? "you" : "omni");

/** The transcript as plain text. */
export function asText(entries) {
  return entries
    .map((entry) => entry.export())
    .map(({ type, role, text, name, output, prompt }) => {
      if (type === "message") return text && `${speaker(role)}: ${text}`;
      if (type === "tool") return `${t("tool", { name })}: ${output ?? "…"}`;
      return t("pictureAsked", { prompt });
    })
    .filter(Boolean)
    .join("\n\n");
}

/** The transcript as Markdown, with its pictures in it. */
export function asMarkdown(entries, { title, session }) {
  const parts = [`# ${title}`, `${new Date().toLocaleString()} · ${session.model ?? "omni"}`];
  for (const entry of entries.map((one) => one.export())) {
    if (entry.type === "tool") {
      const given = `\`${entry.name}(${entry.arguments})\``;
      parts.push(`> ${t("tool", { name: given })}\n>\n> \`\`\`\n> ${entry.output ?? "…"}\n> \`\`\``);
      continue;
    }
    const pictures = entry.pictures.map((url) => `![${t("pictureShown")}](${url})`);
    const sounds = (entry.sounds ?? []).map((name) => `${t("sound")}: ${name}`);
    if (entry.type === "picture") parts.push([entry.prompt, ...pictures].join("\n\n"));
    else parts.push([`**${speaker(entry.role)}**`, ...pictures, ...sounds, entry.text].join("\n\n"));
  }
  return `${parts.join("\n\n")}\n`;
}

/** The transcript with the settings of its session. */
export function asJson(entries, { title, session }) {
  const { id = null, model = null } = session;
  const saved = new Date().toISOString();
  const items = entries.map((entry) => entry.export());
  return JSON.stringify({ title, session: id, model, saved, items }, null, 2);
}

/**
 * The spoken conversation, one turn after the other, as WAV. `fetchSound(name)` gives the PCM of a
 * recording that only the server has.
 * @returns {Promise<Blob | null>} null when nothing was spoken
 */
export async function asWav(entries, fetchSound) {
  const pieces = [];
  for (const entry of entries) {
    let pcm = entry.pcm ?? [];
    if (!pcm.length && entry.recording) pcm = [await fetchSound(entry.recording)];
    if (!pcm.length) continue;
    if (pieces.length) pieces.push(new Int16Array(PAUSE * RATE));
    for (const piece of pcm) pieces.push(toPcm16(piece));
  }
  return pieces.length ? wav(pieces) : null;
}

function wav(pieces) {
  const bytes = 2 * pieces.reduce((sum, piece) => sum + piece.length, 0);
  const head = new DataView(new ArrayBuffer(44));
  const name = (at, text) => [...text].forEach((c, i) => head.setUint8(at + i, c.charCodeAt(0)));
  name(0, "RIFF");
  head.setUint32(4, 36 + bytes, true);
  name(8, "WAVEfmt ");
  head.setUint32(16, 16, true);
  head.setUint16(20, 1, true); // PCM
  head.setUint16(22, 1, true); // channel
  head.setUint32(24, RATE, true);
  head.setUint32(28, 2 * RATE, true);
  head.setUint16(32, 2, true);
  head.setUint16(34, 16, true);
  name(36, "data");
  head.setUint32(40, bytes, true);
  return new Blob([head, ...pieces], { type: "audio/wav" });
}

/** Have the browser save `content` as a file. */
export function save(name, content, type) {
  const blob = content instanceof Blob ? content : new Blob([content], { type });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** The buttons that copy and save. `say(key, values)` tells what came of it. */
export function exportPanel(section, { transcript, client, fetchSound, make, say }) {
  const now = () => {
    const entries = transcript.all;
    const first = entries.find((entry) => entry.role === "user" && entry.text);
    const title = first?.text.slice(0, 60) ?? t("omni");
    return { entries, about: { title, session: client.session } };
  };
  const stamp = () => new Date().toISOString().slice(0, 16).replace(/[:T]/g, "-");
  const saveAs = (ending, type, render) => async () => {
    const { entries, about } = now();
    const content = entries.length ? await render(entries, about) : null;
    if (!content) return say(entries.length ? "noSound" : "nothingToSave");
    const name = `omni-${stamp()}.${ending}`;
    save(name, content, type);
    say("saved", { name });
  };
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(asText(now().entries));
      say("copied");
    } catch {
      say("copyFailed");
    }
  };
  const wave = (entries) => asWav(entries, fetchSound);
  const actions = {
    copyAll: copy,
    asMarkdown: saveAs("md", "text/markdown", asMarkdown),
    asJson: saveAs("json", "application/json", asJson),
    asWav: saveAs("wav", "audio/wav", wave),
  };
  for (const [key, action] of Object.entries(actions)) {
    const button = make("button", "", key);
    button.type = "button";
    button.onclick = () => action().catch((error) => say("historyFailed", { reason: error.message }));
    section.append(button);
  }
}
