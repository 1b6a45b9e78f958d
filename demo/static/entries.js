// The entries of a conversation: what was said, tools that were called, pictures that were made.

import { t, translate } from "./i18n.js";
import { RATE } from "./omni-client.js";
import { Waterfall } from "./waterfall.js";
import { SpokenWords } from "./words.js";

const COPIED = 1500; // ms for which a button says that it has copied

/** An element of `tag` with a class; `key` names its text in the language of the page. */
export function make(tag, className = "", key = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (key) {
    element.dataset.t = key;
    element.textContent = t(key);
  }
  return element;
}

/** A button with a picture of the page's set; `key` names its label. */
export function iconButton(icon, key, onclick) {
  const button = make("button", "omni-icon");
  button.type = "button";
  button.dataset.tLabel = button.dataset.tTitle = key;
  button.innerHTML = `<svg aria-hidden="true"><use href="#omni-i-${icon}"/></svg>`;
  button.onclick = onclick;
  translate(button);
  return button;
}

class Entry {
  response = null;

  constructor(id, kind) {
    this.id = id;
    this.element = make("li", `omni-entry omni-${kind}`);
    this.element.dataset.item = id;
  }

  note(name, on) {
    this.element.classList.toggle(`omni-is-${name}`, on);
  }

  /** Whether it says something; an empty one is taken away when its response is over. */
  get used() {
    return true;
  }

  /** Nothing more of it will come. */
  end() {
    this.note("pending", false);
  }

  /** Say all in the language of the page. */
  draw() {
    translate(this.element);
  }
}

/** What the user or the assistant says. */
export class MessageEntry extends Entry {
  pictures = []; // URLs
  sounds = []; // {name, url}
  pcm = []; // pieces of what was said, Int16Array at 24 kHz
  recording = null; // its name among the media of the session
  written = false; // typed, or of files: what is heard in their sound is not the text
  #frame = null;
  #quote = null;

  constructor(id, role) {
    super(id, role);
    this.role = role;
    this.media = make("div", "omni-media");
    this.words = make("p", "omni-words");
    this.foot = make("div", "omni-foot");
    this.waterfall = new Waterfall();
    this.copy = iconButton("copy", "copyMessage", () => this.#copy());
    if (role === "assistant") this.foot.append(this.waterfall.element);
    this.foot.append(this.copy);
    const who = make("span", "omni-who omni-hidden", role === "user" ? "you" : "omni");
    this.element.append(who, this.media, this.words, this.foot);
    this.spoken = new SpokenWords(this.words);
    this.note("pending", true);
  }

  get text() {
    return this.words.textContent;
  }

  set text(text) {
    this.words.textContent = text;
    this.note("pending", false);
    this.note("partial", false);
  }

  get used() {
    return Boolean(this.text || this.pictures.length || this.sounds.length);
  }

  /** Words that follow; the text node stays the same, so that a selection survives. */
  add(delta) {
    if (this.words.firstChild) this.words.firstChild.appendData(delta);
    else this.words.textContent = delta;
    this.note("pending", false);
  }

  /** What the user seems to have said so far. */
  guess(text) {
    this.text = text;
    this.note("partial", true);
  }

  /** A picture that goes with it. */
  picture(url) {
    this.pictures.push(url);
    this.#image(url);
  }

  /** What the camera or the screen shows while it is said: the server keeps the latest. */
  frame(url) {
    if (this.#frame) {
      this.pictures[this.pictures.indexOf(this.#frame.src)] = url;
      this.#frame.src = url;
    } else {
      this.pictures.push(url);
      this.#frame = this.#image(url);
    }
  }

  #image(url) {
    const image = make("img");
    image.src = url;
    image.dataset.tAlt = this.role === "user" ? "pictureShown" : "pictureMade";
    translate(image);
    this.media.append(image);
    this.note("pending", false);
    return image;
  }

  /** A sound file that goes with it. */
  sound({ name, url }) {
    this.sounds.push({ name, url });
    const figure = make("figure", "omni-sound");
    const player = make("audio");
    Object.assign(player, { src: url, controls: true, preload: "metadata" });
    player.setAttribute("aria-label", name);
    const caption = make("figcaption");
    caption.textContent = name;
    figure.append(caption, player);
    this.media.append(figure);
    this.note("pending", false);
  }

  /** What was heard in the sound that goes with it, where it has words of its own. */
  quote(text) {
    this.#quote ??= this.media.appendChild(make("q"));
    this.#quote.textContent = text;
  }

  /** Speech of the answer, Int16Array or Float32Array; `clause` are the words that begin with it. */
  speech(pcm, clause) {
    this.spoken.add(pcm.length, clause);
    this.pcm.push(pcm);
  }

  /** Ms of speech that have come so far. */
  get received() {
    return (this.spoken.received / RATE) * 1000;
  }

  /** So many samples of it have been played. */
  heard(samples) {
    this.spoken.mark(samples);
  }

  /** Keep only what was heard of it in so many ms. */
  cut(ms) {
    const samples = Math.round((ms / 1000) * RATE);
    const end = this.spoken.received ? this.spoken.wordsUntil(samples) : 0;
    if (end < this.text.length) this.text = `${this.text.slice(0, end).trimEnd()} …`.trimStart();
    this.pcm = first(this.pcm, samples);
    this.note("cut", true);
    this.remark("interrupted");
    SpokenWords.clear();
  }

  remark(key) {
    this.foot.prepend(make("small", "omni-remark", key));
  }

  /** When each stage of the answer was over, in ms since the end of the question. */
  timings(stamps) {
    this.waterfall.update(stamps);
  }

  end() {
    super.end();
    this.spoken.whole = true;
    this.note("over", true);
  }

  draw() {
    super.draw();
    this.waterfall.draw();
  }

  export() {
    const { role, text, pictures, sounds } = this;
    const timings = this.waterfall.stamps;
    return {
      ...{ id: this.id, type: "message", role, text, pictures },
      ...(sounds.length && { sounds: sounds.map(({ name }) => name) }),
      ...(this.element.classList.contains("omni-is-cut") && { interrupted: true }),
      ...(Object.keys(timings).length && { timings }),
    };
  }

  async #copy() {
    let key = "copied";
    try {
      await navigator.clipboard.writeText(this.text);
    } catch {
      key = "copyFailed";
    }
    this.copy.dataset.tLabel = this.copy.dataset.tTitle = key;
    this.note("copied", key === "copied");
    translate(this.copy);
    setTimeout(() => {
      this.copy.dataset.tLabel = this.copy.dataset.tTitle = "copyMessage";
      this.note("copied", false);
      translate(this.copy);
    }, COPIED);
  }
}

/** A function that the model calls: its name, what it is given and what it gives back. */
export class ToolEntry extends Entry {
  #arguments = "";
  #output = null;

  constructor(id, name, callId) {
    super(id, "tool");
    this.name = name;
    this.callId = callId;
    this.details = make("details");
    this.summary = make("summary");
    this.given = make("pre");
    this.made = make("pre");
    this.details.append(
      this.summary,
      ...[make("span", "omni-caption", "toolArguments"), this.given],
      ...[make("span", "omni-caption", "toolOutput"), this.made],
    );
    this.element.append(this.details);
    this.draw();
  }

  set arguments(text) {
    this.#arguments = text;
    this.given.textContent = pretty(text);
  }

  get arguments() {
    return this.#arguments;
  }

  set output(text) {
    this.#output = text;
    this.draw();
  }

  draw() {
    super.draw();
    this.summary.innerHTML = '<svg aria-hidden="true"><use href="#omni-i-tool"/></svg>';
    const state = make("span", "omni-remark", this.#output === null ? "toolRunning" : "toolDone");
    this.summary.append(t("tool", { name: this.name }), " ", state);
    this.made.textContent = this.#output === null ? "…" : pretty(this.#output);
    this.note("pending", this.#output === null);
  }

  end() {} // its output may come later

  export() {
    const { id, name } = this;
    return { id, type: "tool", name, arguments: this.#arguments, output: this.#output };
  }
}

/** What a tool of the server's own has found: its pictures, with their names and prices. */
export class FoundEntry extends ToolEntry {
  constructor(id, name) {
    super(id, name, null);
    this.found = make("div", "omni-found");
    this.element.append(this.found);
  }

  set output(text) {
    super.output = text;
    const { results = [] } = JSON.parse(text || "{}");
    this.found.replaceChildren(...results.filter((one) => one.picture_url).map(figure));
  }
}

function figure({ picture_url: url, title, seen, price, currency }) {
  const whole = make("figure");
  const image = make("img");
  image.src = url;
  image.alt = title || seen;
  image.loading = "lazy";
  const caption = make("figcaption");
  caption.textContent = [title || seen, price && [price, currency].filter(Boolean).join(" ")]
    .filter(Boolean)
    .join(", ");
  whole.append(image, caption);
  return whole;
}

/** A picture that is being made: it sharpens until it is done. */
export class PictureEntry extends Entry {
  url = null;

  constructor(id) {
    super(id, "picture");
    this.image = make("img");
    this.image.hidden = true;
    this.caption = make("figcaption");
    const figure = make("figure");
    figure.append(this.image, this.caption);
    this.element.append(figure);
    this.note("pending", true);
  }

  /** Base64 of a PNG, JPEG or WebP file. */
  show(base64, done) {
    this.url = `data:${mediaType(base64)};base64,${base64}`;
    this.image.src = this.url;
    this.image.hidden = false;
    this.image.dataset.tAlt = done ? "pictureMade" : "pictureForming";
    translate(this.image);
    this.note("pending", !done);
  }

  set prompt(text) {
    this.caption.textContent = this.image.title = text;
  }

  end() {
    super.end();
    if (this.url) return;
    this.caption.dataset.t = "pictureFailed";
    this.draw();
  }

  export() {
    const { id, url } = this;
    return { id, type: "picture", prompt: this.caption.textContent, pictures: url ? [url] : [] };
  }
}

/** The first so many samples of pieces. */
function first(pieces, samples) {
  const kept = [];
  for (const piece of pieces) {
    if (samples <= 0) break;
    kept.push(piece.subarray(0, samples));
    samples -= piece.length;
  }
  return kept;
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

const mediaType = (base64) =>
  base64.startsWith("/9j/") ? "image/jpeg" : base64.startsWith("UklGR") ? "image/webp" : "image/png";
