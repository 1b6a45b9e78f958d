// Earlier conversations, as the server keeps them.

import { iconButton, make } from "./entries.js";
import { language, onLanguage, t } from "./i18n.js";
import { RATE } from "./omni-client.js";

const PAGE = 30;
const STEPS = [
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
];

/** `/v1/sessions` of the server that the page comes from. */
export class SessionStore {
  /** `base` is the address of the server, `key()` its API key or null. */
  constructor(base, key) {
    this.base = base;
    this.key = key;
  }

  async #fetch(path, options = {}) {
    const key = this.key();
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    const answer = await fetch(new URL(`v1/${path}`, this.base), { headers, ...options });
    if (answer.ok) return answer;
    const { error } = await answer.json().catch(() => ({}));
    throw Object.assign(new Error(error?.message ?? answer.statusText), { code: error?.code });
  }

  /** -> {data: [{id, title, updated, items, …}], has_more} */
  async list(offset) {
    return (await this.#fetch(`sessions?limit=${PAGE}&offset=${offset}`)).json();
  }

  async get(id) {
    return (await this.#fetch(`sessions/${encodeURIComponent(id)}`)).json();
  }

  async delete(id) {
    await this.#fetch(`sessions/${encodeURIComponent(id)}`, { method: "DELETE" });
  }

  async models() {
    return (await (await this.#fetch("models")).json()).data;
  }

  async medium(id, name) {
    const path = `sessions/${encodeURIComponent(id)}/media/${encodeURIComponent(name)}`;
    return (await this.#fetch(path)).blob();
  }

  /** A recording as Int16Array at 24 kHz. */
  async sound(id, name) {
    const bytes = await (await this.medium(id, name)).arrayBuffer();
    const context = new OfflineAudioContext(1, 1, RATE);
    const samples = (await context.decodeAudioData(bytes)).getChannelData(0);
    return Int16Array.from(samples, (x) => Math.max(-1, Math.min(1, x)) * 32767);
  }

  /** Give the entries of a conversation that was opened again the pictures and sounds of it. */
  async restore(id, transcript) {
    const { media } = await this.get(id);
    for (const { item_id: item, name, type } of media) {
      const entry = transcript.find(item);
      if (!entry?.picture) continue;
      if (type.startsWith("audio/")) entry.recording = name;
      else entry.picture(URL.createObjectURL(await this.medium(id, name)));
    }
  }
}

/** The list of them. `open(id)` resumes one, `open(null)` begins a new one. */
export class Sessions {
  #data = [];
  #more = false;

  constructor(section, { store, current, open }) {
    this.section = section;
    this.store = store;
    this.current = current;
    this.open = open;
    onLanguage(() => this.#data.length && this.#draw());
  }

  /** Ask the server for them anew. */
  async show() {
    this.#data = [];
    await this.#load();
  }

  async #load() {
    try {
      const { data, has_more: more } = await this.store.list(this.#data.length);
      this.#data.push(...data);
      this.#more = more;
    } catch (error) {
      const keepsNothing = error.code === "session_not_found";
      const key = keepsNothing ? "keepsNothing" : "historyFailed";
      return this.#say(t(key, { reason: error.message }));
    }
    this.#draw();
  }

  #say(text) {
    const line = make("p", "omni-hint");
    line.textContent = text;
    this.section.replaceChildren(line);
  }

  #draw() {
    if (!this.#data.length) return this.#say(t("noHistory"));
    const list = make("ul", "omni-sessions");
    list.append(...this.#data.map((session) => this.#row(session)));
    this.section.replaceChildren(list);
    if (!this.#more) return;
    const more = make("button", "", "more");
    more.type = "button";
    more.onclick = () => this.#load();
    this.section.append(more);
  }

  #row(session) {
    const title = session.title || t("untitled");
    const row = make("li");
    const button = make("button", "omni-session");
    button.type = "button";
    button.onclick = () => this.open(session.id);
    const words = make("span", "omni-title");
    words.textContent = title;
    const when = make("small");
    when.textContent = ago(session.updated);
    button.append(words, when);
    if (session.id === this.current()) {
      button.setAttribute("aria-current", "true");
      when.textContent += ` · ${t("current")}`;
    }
    const remove = iconButton("trash", "delete", () => this.#ask(row, session, title));
    remove.setAttribute("aria-label", t("deleteSession", { title }));
    remove.removeAttribute("data-t-label");
    row.append(button, remove);
    return row;
  }

  /** In place of the row, whether it shall really go. */
  #ask(row, session, title) {
    const question = make("span", "omni-title", "deleteSure");
    const yes = make("button", "omni-danger", "delete");
    const no = make("button", "", "cancel");
    yes.type = no.type = "button";
    yes.setAttribute("aria-label", t("deleteSession", { title }));
    yes.onclick = async () => {
      yes.disabled = true;
      try {
        await this.store.delete(session.id);
      } catch (error) {
        return this.#say(t("historyFailed", { reason: error.message }));
      }
      this.#data = this.#data.filter(({ id }) => id !== session.id);
      if (session.id === this.current()) await this.open(null);
      this.#draw();
      this.section.querySelector("button")?.focus();
    };
    no.onclick = () => {
      const again = this.#row(session);
      row.replaceWith(again);
      again.querySelector(".omni-icon").focus();
    };
    row.replaceChildren(question, no, yes);
    no.focus();
  }
}

/** How long ago a time in seconds since 1970 is, in words. */
function ago(time) {
  const past = Date.now() / 1000 - time;
  if (past > 7 * 86_400) return new Date(time * 1000).toLocaleDateString(language());
  const [unit, length] = STEPS.find(([, length]) => past >= length) ?? ["minute", 60];
  const format = new Intl.RelativeTimeFormat(language(), { numeric: "auto" });
  return format.format(-Math.round(past / length), unit);
}
