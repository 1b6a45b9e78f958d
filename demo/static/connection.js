// The connection to the server: what it is like, and what the user can do about it.

import { t } from "./i18n.js";

const AGAIN_AFTER = 10; // s until a session that the server has ended is taken up again
const ELSEWHERE = 4001; // close code: another window took the session over
const KEY = "omni-key";
const SESSION = "omni-session";

/** Of this window: a reload goes on with the conversation. */
export const earlier = () => ({
  apiKey: sessionStorage.getItem(KEY),
  sessionId: sessionStorage.getItem(SESSION),
});

/**
 * `root` has the form for a key and the button that takes the conversation back; `onChange()` follows
 * it, `onResumed()` is called when an earlier visit's conversation goes on.
 */
export class Connection {
  /** "open", or why it is not: "connecting", "starting", "full", "gone", "ended", … */
  link = "connecting";
  /** Seconds to the next try; 0: there is none. */
  wait = 0;
  #timer = 0;
  #health;
  #client;
  #options;

  constructor(root, { base, client, transcript, say, onChange, onResumed }) {
    const $ = (name) => root.querySelector(`#omni-${name}`);
    this.#health = new URL("health", base);
    this.#client = client;
    this.#options = { transcript, say, onChange, onResumed, $ };
    client.on("client.connecting", () => this.#connecting());
    client.on("client.connected", (event) => this.#connected(event));
    client.on("client.disconnected", (event) => this.#disconnected(event));
    $("key").onsubmit = (event) => {
      event.preventDefault();
      client.apiKey = $("secret").value.trim();
      sessionStorage.setItem(KEY, client.apiKey);
      $("secret").value = "";
      $("key").hidden = true;
      say("");
      client.connect();
    };
    $("here").onclick = () => client.connect();
  }

  get open() {
    return this.link === "open";
  }

  /** Go on with an earlier conversation; null: begin a new one. */
  async change(sessionId) {
    clearTimeout(this.#timer);
    this.#options.say("");
    this.#client.leave(sessionId);
    this.#set("connecting");
    sessionStorage.removeItem(SESSION);
    await this.#client.connect().catch(() => {}); // its events say what is wrong
  }

  #set(link, wait = 0) {
    this.link = link;
    this.wait = wait;
    this.#options.$("here").hidden = link !== "elsewhere";
    this.#options.onChange();
  }

  #connecting() {
    const stays = ["full", "gone", "starting"].includes(this.link);
    this.#set(stays ? this.link : "connecting");
    this.#lookWhetherItStarts();
  }

  #connected({ resumed }) {
    const { transcript, say, onResumed } = this.#options;
    if (resumed || this.link === "full" || this.link === "starting") say("");
    if (resumed && this.#client.sessionId === sessionStorage.getItem(SESSION)) {
      if (this.#known) transcript.line("resumed");
      else onResumed();
    }
    this.#known = true;
    sessionStorage.setItem(SESSION, this.#client.sessionId);
    this.#set("open");
  }

  #known = false; // there was a connection before

  #disconnected({ cause, code, reason, wait }) {
    const { transcript, say, $ } = this.#options;
    if (this.open && reason) say(t("lost", { reason }));
    this.#set(code === ELSEWHERE ? "elsewhere" : cause, wait ?? 0);
    if (cause === "forgotten") {
      if (transcript.used) transcript.line("forgotten");
      this.#set("connecting");
      this.#client.connect();
    } else if (cause === "refused") {
      if (this.#client.apiKey) say(t("wrongKey"));
      sessionStorage.removeItem(KEY);
      $("key").hidden = false;
      $("secret").focus();
    } else if (cause === "full") {
      say(reason);
    } else if (this.link === "ended") {
      this.#set("ended", AGAIN_AFTER);
      this.#timer = setTimeout(() => this.#client.connect(), AGAIN_AFTER * 1000);
    }
    this.#lookWhetherItStarts();
  }

  /** While the models load, the server leaves the session waiting or closes it. */
  async #lookWhetherItStarts() {
    const before = this.link;
    if (before === "open" || before === "elsewhere") return;
    let status = null;
    try {
      status = (await (await fetch(this.#health)).json()).status;
    } catch {
      return; // nothing answers: the state line says so already
    }
    if (status === "starting" && this.link === before) this.#set("starting", this.wait);
  }
}
