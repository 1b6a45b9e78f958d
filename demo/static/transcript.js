// The conversation as it is seen: one entry per item, in the order in which they began.

const STAGES = {
  silence: "pause noticed",
  turn_end: "turn over",
  transcript: "understood",
  first_token: "first word",
  first_clause: "first clause",
  first_audio: "first sound",
};

const seconds = (ms) => `${(ms / 1000).toFixed(2)} s`;

class Entry {
  constructor(role, id) {
    this.role = role;
    this.received = 0; // ms of speech
    this.element = document.createElement("li");
    this.element.className = `omni-entry omni-${role}`;
    this.element.dataset.item = id;
    const who = document.createElement("span");
    who.className = "omni-who";
    who.textContent = role === "user" ? "You" : "Omni";
    this.words = document.createElement("p");
    this.words.className = "omni-words";
    this.element.append(who, this.words);
    this.note("pending", true);
  }

  get text() {
    return this.words.textContent;
  }

  set text(text) {
    this.words.textContent = text;
    this.note("pending", false);
  }

  note(name, on) {
    this.element.classList.toggle(`omni-is-${name}`, on);
  }

  picture(url) {
    this.image ??= this.element.insertBefore(document.createElement("img"), this.words);
    this.image.src = url;
    this.image.alt = this.role === "user" ? "The picture you showed" : "A picture in the answer";
  }

  /** Keep only what was heard: its share of the words, up to a whole word. */
  cut(heard) {
    const share = this.received ? Math.min(1, heard / this.received) : 0;
    let end = Math.round(this.text.length * share);
    while (end > 0 && end < this.text.length && /[\p{L}\p{N}'’]/u.test(this.text[end])) {
      if (/[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}]/u.test(this.text[end])) break;
      end--;
    }
    if (end < this.text.length) this.text = `${this.text.slice(0, end).trimEnd()} …`.trimStart();
    this.note("cut", true);
    this.remark("interrupted");
  }

  remark(text) {
    const line = document.createElement("small");
    line.className = "omni-remark";
    line.textContent = text;
    this.element.append(line);
    return line;
  }

  /** A line and a bar of when each stage happened, in ms since the end of the question. */
  timings(stamps) {
    const stages = Object.keys(STAGES)
      .filter((name) => stamps[name] > 0)
      .sort((a, b) => stamps[a] - stamps[b]);
    if (!stages.length) return;
    const last = stamps[stages.at(-1)];
    const line = this.remark(`answered after ${seconds(stamps.first_audio ?? last)}`);
    line.classList.add("omni-timings");
    const bar = document.createElement("span");
    bar.className = "omni-bar";
    bar.setAttribute("role", "img");
    bar.setAttribute("aria-label", stages.map((s) => `${STAGES[s]} ${seconds(stamps[s])}`).join(", "));
    let begin = 0;
    for (const stage of stages) {
      const part = document.createElement("span");
      part.dataset.stage = stage;
      part.style.flexGrow = Math.max(0, stamps[stage] - begin) / last;
      part.title = `${STAGES[stage]}: ${seconds(stamps[stage])}`;
      bar.append(part);
      begin = stamps[stage];
    }
    const words = document.createElement("span");
    words.className = "omni-stages";
    words.textContent = stages.map((s) => `${STAGES[s]} ${seconds(stamps[s])}`).join(" · ");
    line.append(bar, words);
  }
}

export class Transcript {
  #entries = new Map();

  constructor(list, empty) {
    this.list = list;
    this.empty = empty;
    this.pinned = true; // the reader has not scrolled up
    let before = 0;
    list.addEventListener("scroll", () => {
      // Growth also moves the end away from the reader; only the reader moves upwards.
      if (list.scrollHeight - list.scrollTop - list.clientHeight < 40) this.pinned = true;
      else if (list.scrollTop < before) this.pinned = false;
      before = list.scrollTop;
    });
    list.addEventListener("load", () => this.follow(), true); // a picture has got its size
    new ResizeObserver(() => this.follow()).observe(list);
  }

  /** The entry of an item; made when there is none yet. */
  entry(role, id) {
    let entry = this.#entries.get(id);
    if (!entry) {
      entry = new Entry(role, id);
      this.#entries.set(id, entry);
      this.#append(entry.element);
    }
    return entry;
  }

  find(id) {
    return this.#entries.get(id);
  }

  /** The entries that belong to a response, as [id, entry]. */
  ofResponse(id) {
    return [...this.#entries].filter(([, entry]) => entry.response === id);
  }

  remove(id) {
    this.#entries.get(id)?.element.remove();
    this.#entries.delete(id);
  }

  line(text) {
    const element = document.createElement("li");
    element.className = "omni-line";
    element.textContent = text;
    this.#append(element);
  }

  /** Follow what grows, unless the reader has scrolled up. */
  follow() {
    if (this.pinned) this.list.scrollTop = this.list.scrollHeight;
  }

  get used() {
    return this.#entries.size > 0;
  }

  #append(element) {
    this.empty.hidden = true;
    this.list.append(element);
    this.pinned = true;
    this.follow();
  }
}
