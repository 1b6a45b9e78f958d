// A client of Omni, and of any server that speaks OpenAI's Realtime protocol, in one file without
// dependencies: for browsers, and for Node 22 (earlier ones: pass a WebSocket class).
//
//   import { OmniClient } from "/static/omni/omni-client.js";
//   const omni = new OmniClient({ url: "http://127.0.0.1:7860" });
//   await omni.connect();
//   console.log((await omni.ask("What is the capital of France?")).text);

/**
 * @typedef {{type: string, event_id?: string, [field: string]: any}} ServerEvent
 * @typedef {{name: string, description?: string, parameters?: object,
 *   run?: (args: any) => any}} Tool  `parameters` is a JSON schema; without `run` the caller answers
 * @typedef {{id: string, name: string, arguments: any, output: string | null}} ToolCall
 * @typedef {{text: string, audio: Float32Array | null, toolCalls: ToolCall[],
 *   transcript: string | null, timings: Record<string, number>, usage: Record<string, any>,
 *   status: string}} Reply  `audio` is at 24 kHz; `transcript` is what was heard of the question
 * @typedef {{text?: string, image?: string, audio?: Int16Array | Float32Array}} Question
 *   `image` is a data URL, `audio` mono at 24 kHz
 */

export const RATE = 24000; // Hz of all sound

const FIRST_WAIT = 0.5; // s until the first try to reconnect; it doubles
const LONGEST_WAIT = 10;
const MOST_BUFFERED = 2 ** 20; // bytes in the socket from which senders of sound wait
const PIECE = RATE / 10; // samples in one event
const TRANSCRIPT_WAIT = 2; // s
const MAX_TOOL_ROUNDS = 8; // responses in a row that may call tools
const FULL = 1013;
const LOST = [1001, 1005, 1006, 1011, 1012, 1014]; // the server went away without a no
const ASK = "omni_ask";
const ROUND = "omni_tool_round";

function newId(prefix) {
  // randomUUID is for secure pages only.
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return `${prefix}_${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/** What a server refused or failed; `code`, `param` and `eventId` where it said them. */
export class OmniError extends Error {
  constructor(message, { code = null, param = null, event_id = null } = {}) {
    super(message);
    this.name = "OmniError";
    this.code = code;
    this.param = param;
    this.eventId = event_id;
  }

  static from(error) {
    const words = error?.message ?? error?.code ?? "the server failed and did not say why";
    return new OmniError(words, error ?? {});
  }
}

/**
 * One session. Server events are dispatched under their own types, with the event in `detail`;
 * `on` is the short way to listen. Besides there are
 *
 * - `client.connecting` {},
 * - `client.connected` {resumed, resent, broken}: ready; the ids of events that were sent again, and
 *   of `response.create` events whose answers broke off. A resumed session tells all its items
 *   before, as `conversation.item.added` and `.done`.
 * - `client.disconnected` {cause, code, reason, wait}: `wait` is the seconds until the next try, null
 *   when there will be none. `cause` is "gone", "full", "ended" (on purpose), "refused" (the key is
 *   missing or wrong) or "forgotten" (the session cannot be resumed; `connect` opens a new one).
 *
 * What is sent without a connection waits for one: messages, settings, wishes for an answer. The
 * rest (sound, frames, cancel, truncate) is of the moment and is dropped.
 */
export class OmniClient extends EventTarget {
  #options;
  #socket = null;
  #ready = false;
  #wait = FIRST_WAIT;
  #timer = 0;
  #opening = null; // {promise, resolve, reject} of connect
  #outbox = new Outbox();
  #watchers = new Set();
  #tools = new Map();
  #asks = new Map(); // tag -> options of its response.create
  #asking = Promise.resolve();
  #active = null; // id of the answer that the server is making
  #owed = []; // responses to tools that wait until no answer is being made
  #sessionId;

  /**
   * @param {object} [options]
   * @param {string | URL} [options.url] of the server; default: where the page comes from
   * @param {string | null} [options.apiKey] a key or a client secret
   * @param {string} [options.model]
   * @param {string | null} [options.sessionId] an earlier session to go on with
   * @param {boolean} [options.reconnect] restore a connection that breaks, and try until it is there
   * @param {typeof WebSocket} [options.WebSocket] for Node before 22
   */
  constructor(options = {}) {
    super();
    this.#options = { model: "omni", reconnect: true, WebSocket: globalThis.WebSocket, ...options };
    this.#sessionId = options.sessionId ?? null;
    this.#address(); // a wrong one is told here
    this.apiKey = options.apiKey ?? null;
    /** The session's settings as the server last reported them. */
    this.session = {};
  }

  /** Whether an event that is sent now leaves at once. */
  get open() {
    return this.#ready;
  }

  /** The id by which the session can be resumed. */
  get sessionId() {
    return this.#sessionId;
  }

  /** Call `handler(event)` for events of `type`; gives the function that ends it. */
  on(type, handler) {
    const listener = ({ detail }) => handler(detail);
    this.addEventListener(type, listener);
    return () => this.removeEventListener(type, listener);
  }

  /**
   * Open the session. It tries until the server is there (without `reconnect`: once), and rejects
   * when the server refuses, or on `close`.
   * @returns {Promise<OmniClient>}
   */
  connect() {
    if (!this.#opening) {
      this.#opening = {};
      this.#opening.promise = new Promise((resolve, reject) => {
        Object.assign(this.#opening, { resolve, reject });
      });
      this.#opening.promise.catch(() => {}); // the events tell it, too
      this.#dial();
    }
    return this.#opening.promise;
  }

  /** End the session for good. */
  close() {
    this.leave(null);
  }

  /** End this session; `connect` then goes on with an earlier one, or with null opens a new one. */
  leave(sessionId) {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = this.#active = null;
    this.#sessionId = sessionId;
    this.#ready = false;
    this.#outbox = new Outbox();
    socket?.close();
    this.#end(new OmniError("the session was closed"));
  }

  /** No more tries: all that waits fails. */
  #end(error) {
    this.#opening?.reject(error);
    this.#opening = null;
    for (const watcher of [...this.#watchers]) watcher.fail(error);
  }

  /** The address of the WebSocket, or of another path of the server. */
  #address(path = "realtime") {
    const url = new URL(this.#options.url ?? globalThis.location?.origin);
    url.pathname = `${url.pathname.replace(/\/(v1(\/realtime)?\/?)?$/, "")}/v1/${path}`;
    if (path !== "realtime") {
      url.protocol = url.protocol.replace("ws", "http");
      url.search = "";
      return url;
    }
    url.protocol = url.protocol.replace("http", "ws");
    if (!url.search) url.searchParams.set("model", this.#options.model);
    if (this.#sessionId) url.searchParams.set("session_id", this.#sessionId);
    return url;
  }

  #dial() {
    clearTimeout(this.#timer);
    this.#tell("client.connecting", {});
    const key = this.apiKey;
    const protocols = key ? ["realtime", `openai-insecure-api-key.${key}`] : [];
    const socket = (this.#socket = new this.#options.WebSocket(this.#address(), protocols));
    const link = { greeted: false, marker: null, resumes: this.#sessionId, problem: null };
    socket.onmessage = ({ data }) => {
      if (socket === this.#socket) this.#receive(link, JSON.parse(data));
    };
    socket.onerror = () => {}; // a close follows
    socket.onclose = async ({ code, reason }) => {
      if (socket !== this.#socket) return;
      const lost = this.#ready;
      this.#ready = false;
      this.#active = null;
      // Browsers do not tell how a handshake was refused.
      const refused = !link.greeted && !link.problem && (await this.#wantsKey());
      if (socket === this.#socket) this.#closed({ link, lost, code, reason, refused });
    };
  }

  async #wantsKey() {
    try {
      const headers = this.apiKey ? { Authorization: `Bearer ${this.apiKey}` } : {};
      return (await fetch(this.#address("models"), { headers })).status === 401;
    } catch {
      return false; // nothing answers
    }
  }

  #closed({ link, lost, code, reason, refused }) {
    this.#socket = null;
    let cause = "gone";
    if (refused) cause = "refused";
    else if (link.problem?.code === "session_not_found") cause = "forgotten";
    else if (code === FULL) cause = "full";
    else if (!LOST.includes(code)) cause = "ended";
    if (cause === "forgotten") {
      this.#sessionId = null;
      if (this.#outbox.empty && this.#options.reconnect) {
        // Servers do not keep sessions in which nothing was said; then a new one is as good.
        this.#outbox.restart();
        return this.#dial();
      }
      this.#outbox = new Outbox();
    }
    const again = this.#options.reconnect && (cause === "gone" || (cause === "full" && !lost));
    let wait = null;
    if (again) {
      wait = cause === "full" ? LONGEST_WAIT : this.#wait;
      this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT);
      wait *= 0.8 + 0.4 * Math.random();
      this.#timer = setTimeout(() => this.#dial(), wait * 1000);
    }
    const why = link.problem?.message ?? (reason || `the connection is ${cause} (${code})`);
    if (!again) this.#end(new OmniError(why, link.problem ?? { code: cause }));
    this.#tell("client.disconnected", { cause, code, reason: link.problem?.message ?? reason, wait });
  }

  #receive(link, event) {
    if (!link.greeted) {
      if (event.type === "error") {
        link.problem = event.error; // a close follows, and tells it
        return;
      }
      if (event.type === "session.created") {
        if (link.resumes && event.session.id !== link.resumes) {
          link.problem = { code: "session_not_found", message: "the session is not known here" };
          return this.#socket.close();
        }
        link.greeted = true;
      }
    }
    if (link.marker && event.type === "error" && event.error.event_id === link.marker) {
      return this.#connected(link); // all that the server has, it has told before this answer
    }
    this.#outbox.acknowledge(event);
    if (event.type === "session.created" || event.type === "session.updated") {
      this.session = event.session;
      this.#sessionId = event.session.id ?? null;
    }
    if (event.type === "response.created") this.#active = event.response.id;
    if (event.type === "response.done") this.#active = null;
    this.#tell(event.type, event);
    if (event.type === "response.done") {
      this.#useTools(event.response);
      this.#pay();
    }
    if (event.type !== "session.created") return;
    if (!link.resumes) return this.#connected(link);
    link.marker = newId("event");
    const question = { type: "conversation.item.retrieve", item_id: "none", event_id: link.marker };
    this.#socket.send(JSON.stringify(question));
  }

  #connected(link) {
    link.marker = null;
    this.#wait = FIRST_WAIT;
    const { missing, broken } = this.#outbox.resume();
    for (const event of missing) this.#socket.send(JSON.stringify(event));
    this.#ready = true;
    this.#opening?.resolve(this);
    this.#pay();
    const resent = missing.map((event) => event.event_id);
    this.#tell("client.connected", { resumed: Boolean(link.resumes), resent, broken });
  }

  #tell(type, detail) {
    for (const watcher of [...this.#watchers]) watcher.see(type, detail);
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /**
   * Send a client event as it stands.
   * @returns {string | null} its id; null when it was dropped because there is no connection
   */
  send(type, fields = {}) {
    const event = { event_id: newId("event"), ...fields, type };
    const kept = this.#outbox.note(event);
    if (this.#ready) this.#socket.send(JSON.stringify(event));
    return this.#ready || kept ? event.event_id : null;
  }

  /**
   * Change settings, nested as on the wire; `tools` may have functions, which are then called.
   * @param {Record<string, any>} session
   * @returns {Promise<Record<string, any>>} all settings
   */
  async updateSession(session) {
    const wanted = { type: "realtime", ...this.#withTools(session) };
    const id = this.send("session.update", { session: wanted });
    return this.#watch((type, event, done, fail) => {
      if (type === "session.updated") done(event.session);
      else if (type === "error" && event.error.event_id === id) fail(OmniError.from(event.error));
    }).promise;
  }

  /** Add a written message of the user; `createResponse` asks for the answer. -> the item's id */
  sendText(text) {
    return this.sendMessage([{ type: "input_text", text }]);
  }

  /** Add a message of the user of content parts. -> the item's id */
  sendMessage(content) {
    const id = newId("item");
    const item = { id, type: "message", role: "user", content };
    this.send("conversation.item.create", { item });
    return id;
  }

  /**
   * Add mono sound at 24 kHz to the input buffer. It waits while the socket is full.
   * @param {Int16Array | Float32Array} samples
   */
  async sendAudio(samples) {
    const pcm = toPcm16(samples);
    for (let begin = 0; begin < pcm.length; begin += PIECE) {
      while (this.#ready && this.#socket.bufferedAmount > MOST_BUFFERED) {
        await new Promise((done) => setTimeout(done, 20));
      }
      const audio = encodePcm(pcm.subarray(begin, begin + PIECE));
      this.send("input_audio_buffer.append", { audio });
    }
  }

  /** Say that the user's turn is over; needed only without turn detection. */
  commit() {
    return this.send("input_audio_buffer.commit");
  }

  /** Forget the sound that was sent and not yet committed. */
  clearAudio() {
    return this.send("input_audio_buffer.clear");
  }

  /** Show a camera frame, a data URL or base64: the user's next turn has it. */
  sendImage(image) {
    return this.send("input_image_buffer.append", { image: image.slice(image.indexOf(",") + 1) });
  }

  /** Ask for an answer now; the options are those of `response.create`. */
  createResponse(response = {}) {
    return this.send("response.create", { response: this.#withTools(response) });
  }

  /** Stop the answer that is being made. */
  cancel(responseId = null) {
    return this.send("response.cancel", responseId ? { response_id: responseId } : {});
  }

  /** Tell the server how much of a spoken answer was really heard. */
  truncate(itemId, audioEndMs, contentIndex = 0) {
    const where = { item_id: itemId, content_index: contentIndex };
    return this.send("conversation.item.truncate", { ...where, audio_end_ms: audioEndMs });
  }

  /** Tell what a tool gave back whose calls you answer yourself. */
  sendToolOutput(callId, output) {
    const item = { id: newId("item"), type: "function_call_output", call_id: callId, output };
    return this.send("conversation.item.create", { item });
  }

  /**
   * Ask one question and wait for the whole answer. Questions wait for each other.
   * @param {string | Question} question
   * @param {object} [options] those of `response.create`, with `tools`, and
   * @param {number} [options.timeout] seconds, 120
   * @param {AbortSignal} [options.signal] stops the answer
   * @returns {Promise<Reply>} rejects with an OmniError
   */
  ask(question, { timeout = 120, signal, ...options } = {}) {
    const content = contentOf(typeof question === "string" ? { text: question } : question);
    const answered = this.#asking.then(() => this.#ask(content, options, timeout, signal));
    this.#asking = answered.catch(() => {});
    return answered;
  }

  async #ask(content, options, timeout, signal) {
    signal?.throwIfAborted();
    const itemId = newId("item");
    const wanted = this.#withTools({ ...options, metadata: { ...options.metadata, [ASK]: itemId } });
    const ask = { answer: new Answer(itemId), options: wanted, sent: null, events: [] };
    const { answer } = ask;
    const spoken = content.some(({ type }) => type === "input_audio");
    const listens = spoken && Boolean(this.session.audio?.input?.transcription);
    let late;
    this.#asks.set(itemId, ask);
    const replied = this.#watch((type, event, done, fail) => {
      if (type === "error") {
        const { event_id: id, type: kind } = event.error;
        // Some servers do not say which event failed; troubles of their own are not ours.
        if (id ? !ask.events.includes(id) : kind === "server_error") return;
        if (id === ask.events[0]) this.cancel(); // no question, hence no answer
        return fail(OmniError.from(event.error));
      }
      if (type === "client.connected" && event.resent.includes(ask.sent)) answer.responseId = null;
      if (type === "client.connected" && event.broken.includes(ask.sent)) {
        return fail(new OmniError("the connection was lost in the middle of this answer; ask again"));
      }
      answer.add(type, event);
      if (!answer.done) return;
      if (this.#goesOn(answer.done)) return answer.nextRound();
      const { status, status_details: details } = answer.done;
      if (status === "failed") return fail(OmniError.from(details?.error));
      // The protocol promises no order between the answer and the transcript of the question.
      if (!listens || answer.heard) done(answer.reply());
      else late ??= setTimeout(() => done(answer.reply()), TRANSCRIPT_WAIT * 1000);
    });
    const stop = (reason) => {
      replied.fail(reason);
      if (this.#ready) this.cancel(answer.responseId);
    };
    const abort = () => stop(signal.reason);
    const timer = setTimeout(() => stop(new OmniError(`no whole answer in ${timeout} s`)), timeout * 1000);
    signal?.addEventListener("abort", abort);
    try {
      const item = { id: itemId, type: "message", role: "user", content };
      ask.events.push(this.send("conversation.item.create", { item }));
      ask.sent = this.send("response.create", { response: wanted });
      ask.events.push(ask.sent);
      return await replied.promise;
    } finally {
      signal?.removeEventListener("abort", abort);
      clearTimeout(timer);
      clearTimeout(late);
      this.#asks.delete(itemId);
    }
  }

  /** A promise that `look(type, event, resolve, reject)` settles; it sees every event. */
  #watch(look) {
    const watcher = {};
    watcher.promise = new Promise((resolve, reject) => {
      watcher.see = (type, event) => look(type, event, resolve, reject);
      watcher.fail = reject;
    }).finally(() => this.#watchers.delete(watcher));
    this.#watchers.add(watcher);
    return watcher;
  }

  // Tools

  #withTools(options) {
    if (!options.tools) return options;
    const tools = options.tools.map(({ run, ...tool }) => {
      if (run) this.#tools.set(tool.name, run);
      return { type: "function", ...tool };
    });
    return { ...options, tools };
  }

  /** Whether all calls of a response will be answered, and another response follows. */
  #goesOn(response) {
    const calls = callsOf(response);
    return calls.length > 0 && calls.every(({ name }) => this.#tools.has(name));
  }

  async #useTools(response) {
    const calls = callsOf(response).filter(({ name }) => this.#tools.has(name));
    if (!calls.length) return;
    const goesOn = this.#goesOn(response);
    const ask = this.#asks.get(response.metadata?.[ASK]);
    if (!ask && response.metadata?.[ASK]) return; // nobody waits for it any more
    const outputs = await Promise.all(calls.map((call) => this.#run(call)));
    calls.forEach((call, index) => {
      ask?.answer.outputs.set(call.call_id, outputs[index]);
      this.sendToolOutput(call.call_id, outputs[index]);
    });
    if (!goesOn) return;
    const round = ask ? ask.answer.round : Number(response.metadata?.[ROUND] ?? 0) + 1;
    const options = { ...ask?.options };
    options.metadata = { ...options.metadata, [ROUND]: String(round) };
    const choice = options.tool_choice ?? this.session.tool_choice ?? "auto";
    if (round >= MAX_TOOL_ROUNDS) options.tool_choice = "none";
    else if (choice !== "none") options.tool_choice = "auto"; // what was required has been called
    this.#owed.push({ ask, options });
    this.#pay();
  }

  /** Ask for the answers to tools, unless the server makes one; it has to end first. */
  #pay() {
    if (this.#active || !this.#owed.length) return;
    const { ask, options } = this.#owed.shift();
    const sent = this.send("response.create", { response: options });
    if (ask) ask.events.push((ask.sent = sent));
  }

  async #run({ name, arguments: text }) {
    try {
      const output = await this.#tools.get(name)(JSON.parse(text || "{}"));
      return typeof output === "string" ? output : (JSON.stringify(output) ?? "null");
    } catch (error) {
      return JSON.stringify({ error: String(error?.message ?? error) });
    }
  }
}

const callsOf = ({ status, output }) =>
  status === "completed"
    ? (output ?? []).filter((item) => item.type === "function_call" && item.status !== "incomplete")
    : [];

/** Collects the events of an answer, of one response after the other while tools are called. */
class Answer {
  constructor(itemId) {
    this.itemId = itemId;
    this.responseId = null;
    this.done = null;
    this.round = 0;
    this.heard = false;
    this.outputs = new Map();
    this.transcript = null;
    this.words = new Map();
    this.sound = [];
    this.calls = [];
    this.usage = {};
  }

  add(type, event) {
    if (type === "response.created" && !this.responseId) {
      const { id, metadata } = event.response;
      // Servers that do not give metadata back are taken at their word: the next one is ours.
      if (metadata === undefined || metadata?.[ASK] === this.itemId) this.responseId = id;
    } else if (type === "response.done" && event.response.id === this.responseId) {
      this.done = event.response;
      this.usage = sum(this.usage, event.response.usage ?? {});
    } else if (type.startsWith("conversation.item.input_audio_transcription.")) {
      if (event.item_id !== this.itemId) return;
      if (type.endsWith(".completed")) this.transcript = event.transcript;
      this.heard ||= !type.endsWith(".delta");
    } else if (this.responseId && event.response_id === this.responseId) {
      this.#addOutput(type, event);
    }
  }

  #addOutput(type, event) {
    if (type === "response.output_text.delta" || type === "response.output_audio_transcript.delta") {
      const part = `${this.round} ${event.output_index} ${event.content_index}`;
      this.words.set(part, (this.words.get(part) ?? "") + event.delta);
    } else if (type === "response.output_audio.delta") {
      this.sound.push(decodePcm(event.delta));
    } else if (type === "response.output_item.done" && event.item.type === "function_call") {
      this.calls.push(event.item);
    }
  }

  nextRound() {
    this.responseId = this.done = null;
    this.round++;
  }

  /** @returns {Reply} */
  reply() {
    const { status, timings } = this.done;
    return {
      text: [...this.words.values()].join("\n"),
      audio: this.sound.length ? joined(this.sound) : null,
      toolCalls: this.calls.map(({ call_id: id, name, arguments: text }) => ({
        ...{ id, name, arguments: parsed(text), output: this.outputs.get(id) ?? null },
      })),
      transcript: this.transcript,
      timings: timings ?? {},
      usage: this.usage,
      status: status ?? "completed",
    };
  }
}

/** Remembers items, settings and wishes for an answer until the server has taken them. */
class Outbox {
  #waiting = new Map(); // event id -> event
  #responses = new Map(); // id of a response that is being made -> id of the event that asked for it
  #settings = {};
  #answered = false; // the last item of the conversation is the assistant's
  empty = true; // nothing was said yet

  /** An event that is sent; whether it is kept until it is acknowledged. */
  note(event) {
    if (event.type === "response.cancel") this.#drop("response.create");
    const message = event.type === "conversation.item.create" && event.item.id;
    const kept = Boolean(message) || ["session.update", "response.create"].includes(event.type);
    if (kept) this.#waiting.set(event.event_id, event);
    return kept;
  }

  acknowledge(event) {
    const id = event.response_id ?? event.response?.id;
    if (/^conversation\.item\.(added|created|done)$/.test(event.type)) {
      this.empty = false;
      const { role, type } = event.item;
      if (!event.type.endsWith("done")) this.#answered = role === "assistant" || type === "function_call";
      this.#drop("conversation.item.create", event.item.id);
    } else if (event.type === "session.created") {
      this.#answered = false;
    } else if (event.type === "session.updated") {
      const [first] = this.#find("session.update");
      if (first) this.#settings = merge(this.#settings, first.session);
      this.#waiting.delete(first?.event_id);
    } else if (event.type === "response.created") {
      const begun = [...this.#responses.values()];
      const first = this.#find("response.create").find((one) => !begun.includes(one.event_id));
      if (first) this.#responses.set(id, first.event_id);
    } else if (event.type === "response.output_item.added") {
      this.#waiting.delete(this.#responses.get(id));
    } else if (event.type === "response.done") {
      this.#waiting.delete(this.#responses.get(id));
      this.#responses.delete(id);
    } else if (event.type === "error") {
      this.#waiting.delete(event.error?.event_id);
    }
  }

  /** Once the server has told all items: what it lacks, and whose answers broke off. */
  resume() {
    const broken = [...this.#responses.values()].filter((id) => !this.#waiting.has(id));
    this.#responses.clear();
    if (this.#answered && !this.#find("conversation.item.create").length) {
      broken.push(...this.#drop("response.create"));
    }
    return { missing: [...this.#waiting.values()], broken };
  }

  /** A new session takes the place of an empty one: it lacks all settings, too. */
  restart() {
    if (!Object.keys(this.#settings).length) return;
    const event = { event_id: newId("event"), type: "session.update", session: this.#settings };
    this.#waiting = new Map([[event.event_id, event], ...this.#waiting]);
  }

  #find(type, itemId = null) {
    const fits = (event) => event.type === type && (!itemId || event.item.id === itemId);
    return [...this.#waiting.values()].filter(fits);
  }

  #drop(type, itemId = null) {
    const ids = this.#find(type, itemId).map((event) => event.event_id);
    for (const id of ids) this.#waiting.delete(id);
    return ids;
  }
}

// Small things

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

function merge(old, more) {
  const merged = { ...old };
  for (const [key, value] of Object.entries(more)) {
    merged[key] = isObject(value) && isObject(merged[key]) ? merge(merged[key], value) : value;
  }
  return merged;
}

function sum(one, other) {
  const total = { ...one };
  for (const [key, value] of Object.entries(other)) {
    total[key] = isObject(value) ? sum(total[key] ?? {}, value) : (total[key] ?? 0) + (value ?? 0);
  }
  return total;
}

function parsed(text) {
  try {
    return JSON.parse(text || "{}");
  } catch {
    return {};
  }
}

function joined(pieces) {
  const all = new Float32Array(pieces.reduce((length, piece) => length + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}

function contentOf({ text, image, audio }) {
  const content = [];
  if (image) content.push({ type: "input_image", image_url: image });
  if (audio) content.push({ type: "input_audio", audio: encodePcm(toPcm16(audio)) });
  if (text?.trim()) content.push({ type: "input_text", text });
  if (!content.length) throw new OmniError("nothing was asked; give text, image or audio");
  return content;
}

/** Float32Array in [-1, 1] -> Int16Array; an Int16Array stays as it is. */
export function toPcm16(samples) {
  if (samples instanceof Int16Array) return samples;
  return Int16Array.from(samples, (x) => Math.round(Math.max(-1, Math.min(1, x)) * 32767));
}

/** Int16Array -> base64 of its little-endian bytes. */
export function encodePcm(samples) {
  const bytes = new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength);
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) {
    text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  }
  return btoa(text);
}

/** base64 of little-endian PCM16 -> Float32Array in [-1, 1). */
export function decodePcm(base64) {
  const text = atob(base64);
  const pcm = new Float32Array(text.length >> 1);
  for (let i = 0; i < pcm.length; i++) {
    const value = text.charCodeAt(2 * i) | (text.charCodeAt(2 * i + 1) << 8);
    pcm[i] = ((value << 16) >> 16) / 32768;
  }
  return pcm;
}
