// The Realtime protocol over a WebSocket that comes back by itself.
//
// Every server event is dispatched as an Event of its own type, with the event in `detail`.
// "link" tells how the connection is: {state: "connecting" | "open" | "full" | "gone", wait, code,
// reason}, where `wait` is the seconds until the next try.

const FIRST_WAIT = 0.5;
const LONGEST_WAIT = 10;
const TRY_AGAIN_LATER = 1013;

export class RealtimeClient extends EventTarget {
  #url;
  #socket = null;
  #wait = FIRST_WAIT;
  #timer = 0;

  constructor(url) {
    super();
    this.#url = url;
  }

  get open() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  connect() {
    clearTimeout(this.#timer);
    this.#tell("link", { state: "connecting" });
    const socket = (this.#socket = new WebSocket(this.#url));
    socket.onmessage = ({ data }) => {
      const event = JSON.parse(data);
      if (event.type === "session.created") {
        this.#wait = FIRST_WAIT;
        this.#tell("link", { state: "open" });
      }
      this.#tell(event.type, event);
    };
    socket.onclose = ({ code, reason }) => {
      const full = code === TRY_AGAIN_LATER;
      const wait = full ? LONGEST_WAIT : this.#wait;
      this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT);
      this.#timer = setTimeout(() => this.connect(), wait * (0.8 + 0.4 * Math.random()) * 1000);
      this.#tell("link", { state: full ? "full" : "gone", wait, code, reason });
    };
  }

  /** Send a client event; false when there is no connection to send it over. */
  send(type, fields = {}) {
    if (!this.open) return false;
    this.#socket.send(JSON.stringify({ type, ...fields }));
    return true;
  }

  /** A user message of content parts, and the wish for an answer to it. */
  ask(content) {
    const item = { type: "message", role: "user", content };
    return this.send("conversation.item.create", { item }) && this.send("response.create");
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
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
