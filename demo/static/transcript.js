// The conversation as it is seen: one entry per item, in the order of the conversation.

import { FoundEntry, MessageEntry, PictureEntry, ToolEntry, make } from "./entries.js";
import { onLanguage, t } from "./i18n.js";
import { SpokenWords } from "./words.js";

const TRANSCRIPTION = "conversation.item.input_audio_transcription";

/**
 * The list of entries. `announce(text)` speaks to people who do not see them; what is spoken aloud
 * anyway is not announced.
 */
export class Transcript {
  #entries = new Map();
  #previous = new Map(); // id of an item -> id of the one before it

  constructor(list, empty, { latest = null, announce = () => {} } = {}) {
    this.list = list;
    this.empty = empty;
    this.latest = latest;
    this.announce = announce;
    this.pinned = true; // the reader has not scrolled up
    let before = { top: 0, height: 0, room: 0 };
    list.addEventListener("scroll", () => {
      const { scrollTop: top, scrollHeight: height, clientHeight: room } = list;
      // Growth also moves the end away from the reader, and another size of the window moves all.
      if (height - top - room < 40) this.pinned = true;
      else if (top < before.top && height >= before.height && room <= before.room) {
        this.pinned = false;
      }
      before = { top, height, room };
      if (latest) latest.hidden = this.pinned;
    });
    if (latest) {
      latest.onclick = () => {
        this.pinned = true;
        this.follow();
        list.focus();
      };
    }
    new ResizeObserver(() => this.follow()).observe(list);
    list.addEventListener("toggle", () => this.follow(), true);
    list.addEventListener("load", () => this.follow(), true); // pictures take room when they are there
    onLanguage(() => {
      for (const entry of this.#entries.values()) entry.draw();
    });
  }

  /** The message of an item, made when it is not there yet. */
  entry(role, id) {
    return this.#known(id) ?? this.#insert(new MessageEntry(id, role));
  }

  find(id) {
    return this.#known(id);
  }

  /** The entries that belong to a response, as [id, entry]. */
  ofResponse(id) {
    return [...this.#entries].filter(([, entry]) => entry.response === id);
  }

  remove(id) {
    this.#entries.get(id)?.element.remove();
    this.#entries.delete(id);
    this.empty.hidden = this.list.childElementCount > 0;
  }

  clear() {
    this.#entries.clear();
    this.#previous.clear();
    this.list.replaceChildren();
    this.empty.hidden = false;
    SpokenWords.clear();
  }

  /** A remark between the entries; `key` names its text. */
  line(key) {
    this.#append(make("li", "omni-line", key));
  }

  /** Follow what grows, unless the reader has scrolled up. */
  follow() {
    if (this.pinned) this.list.scrollTop = this.list.scrollHeight;
  }

  get used() {
    return this.#entries.size > 0;
  }

  /** All entries in their order. */
  get all() {
    return [...this.list.children].map((li) => this.#entries.get(li.dataset.item)).filter(Boolean);
  }

  /** So many samples of an item have been played, and whether that is all: mark the words. */
  heard({ item, played, over }) {
    const entry = this.#known(item);
    if (!entry?.heard || over) SpokenWords.clear();
    else entry.heard(played);
  }

  /**
   * Follow the events of a client. `stopped` has the ids of responses of which nothing more shall
   * be seen, `aloud()` says whether answers are spoken.
   */
  listen(client, { stopped, aloud }) {
    const on = (type, handler) => client.on(type, handler);
    const ignored = (id) => stopped.has(id);

    on("conversation.item.added", ({ item, previous_item_id: previous }) => {
      if (previous) this.#previous.set(item.id, previous);
      if (item.type === "function_call_output") return this.#output(item);
      if (item.type === "message" && item.status === "in_progress") return;
      if (item.type !== "message" || item.role !== "system") this.#item(item);
    });
    on("conversation.item.done", ({ item }) => {
      const entry = this.#known(item.id);
      if (entry && item.role === "user" && entry.used) entry.end();
    });
    on("conversation.item.deleted", ({ item_id }) => this.remove(item_id));

    on("input_audio_buffer.partial_transcript", ({ item_id, transcript }) => {
      if (transcript.trim()) this.entry("user", item_id).guess(transcript.trim());
      this.follow();
    });
    on(`${TRANSCRIPTION}.delta`, ({ item_id, delta }) => {
      const entry = this.entry("user", item_id);
      if (entry.written) return;
      if (entry.element.classList.contains("omni-is-partial")) entry.text = "";
      entry.add(delta);
      this.follow();
    });
    on(`${TRANSCRIPTION}.completed`, ({ item_id, transcript }) => {
      const entry = this.entry("user", item_id);
      if (entry.written) entry.quote(transcript.trim());
      else entry.text = transcript.trim();
      if (!entry.used) this.remove(item_id);
      this.follow();
    });
    on(`${TRANSCRIPTION}.failed`, ({ item_id }) => {
      const entry = this.entry("user", item_id);
      if (entry.written) entry.quote(t("notUnderstood"));
      else entry.text = t("notUnderstood");
    });

    on("response.output_item.added", ({ item, response_id }) => {
      if (!ignored(response_id)) this.#item(item).response = response_id;
    });
    const addWords = ({ response_id, item_id, delta }) => {
      if (ignored(response_id)) return;
      const entry = this.entry("assistant", item_id);
      entry.response = response_id;
      entry.add(delta);
      this.follow();
    };
    on("response.output_audio_transcript.delta", addWords);
    on("response.output_text.delta", addWords);
    on("response.function_call_arguments.delta", ({ item_id, delta }) => {
      const entry = this.#known(item_id);
      if (entry) entry.arguments += delta;
      this.follow();
    });
    on("response.image_generation_call.partial_image", ({ item_id, partial_image_b64: data }) => {
      this.#known(item_id)?.show(data, false);
      this.follow();
    });
    on("response.output_item.done", ({ item, response_id }) => {
      if (item.type !== "message" && !ignored(response_id)) this.#item(item);
    });
    on("response.done", ({ response }) => {
      for (const [id, entry] of this.ofResponse(response.id)) {
        entry.end();
        if (!entry.used) this.remove(id);
        else if (response.timings) entry.timings?.(response.timings);
        if (entry.text && !aloud()) this.announce(`${t("omni")}: ${entry.text}`);
      }
      this.follow();
    });
  }

  /** The entry of an item, with all that the item tells. */
  #item(item) {
    const known = this.#known(item.id);
    if (item.type === "function_call") {
      const entry = known ?? this.#insert(new ToolEntry(item.id, item.name, item.call_id));
      if (item.arguments) entry.arguments = item.arguments;
      return entry;
    }
    if (item.type === "mcp_call") {
      const entry = known ?? this.#insert(new FoundEntry(item.id, item.name));
      entry.arguments = item.arguments;
      if (item.output) entry.output = item.output;
      return entry;
    }
    if (item.type === "image_generation_call") {
      const entry = known ?? this.#insert(new PictureEntry(item.id));
      if (item.revised_prompt) entry.prompt = item.revised_prompt;
      if (item.result) entry.show(item.result, true);
      else if (item.status === "failed") entry.end();
      return entry;
    }
    const entry = this.entry(item.role, item.id);
    const parts = item.content ?? [];
    const typed = parts.map(({ text }) => text ?? "").join("");
    const said = parts.map(({ transcript }) => transcript ?? "").join(" ");
    entry.written ||= Boolean(typed) && item.role === "user";
    if (entry.written && said.trim()) entry.quote(said.trim());
    const words = typed || (entry.written ? "" : said.trim());
    if (words && !entry.text) entry.text = words;
    if (item.status === "incomplete") entry.end();
    return entry;
  }

  #output({ call_id: callId, output }) {
    const entry = this.all.findLast((one) => one.callId === callId);
    if (entry) entry.output = output;
  }

  #known(id) {
    return this.#entries.get(id);
  }

  #insert(entry) {
    this.#entries.set(entry.id, entry);
    const previous = this.#known(this.#previous.get(entry.id))?.element;
    this.#append(entry.element, previous);
    return entry;
  }

  #append(element, previous) {
    this.empty.hidden = true;
    if (previous) previous.after(element);
    else this.list.append(element);
    if (!element.nextElementSibling) this.pinned = true;
    this.follow();
  }
}
