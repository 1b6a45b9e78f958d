// The page: wires the microphone, the speaker, the camera and the keyboard to the session.

import { DeviceError, Microphone, Speaker } from "./audio.js";
import { Camera, bare, readPicture } from "./pictures.js";
import { RealtimeClient, decodePcm, encodePcm } from "./realtime.js";
import { Transcript } from "./transcript.js";

const RATE = 24000;
const FRAME_EVERY = 1000;
const WORDS = {
  connecting: "Connecting…",
  starting: "The server is loading its models…",
  full: "The server is full.",
  gone: "The connection is gone.",
  ready: "Ready: press Talk, or type.",
  listening: "Listening…",
  muted: "Muted: you are not heard.",
  hearing: "Hearing you…",
  thinking: "Thinking…",
  speaking: "Speaking…",
};

function start(root) {
  const $ = (name) => root.querySelector(`#omni-${name}`);
  const socket = new URL("../../v1/realtime?model=omni", import.meta.url);
  socket.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const client = new RealtimeClient(socket);
  const transcript = new Transcript($("log"), $("empty"));
  const camera = new Camera($("video"));

  let link = "connecting";
  let wait = 0; // seconds to the next try, while there is no connection
  let muted = false;
  let turn = null; // id of the item that the user is speaking
  let response = null; // id of the response that is being made
  let playing = false;
  let attached = null; // data URL of a picture for the next question
  let typed = 0; // number of typed questions, for their ids on this page
  const stopped = new Set(); // responses of which nothing more shall be heard or seen

  // --- what the state line says ---------------------------------------------------------------

  function state() {
    if (link !== "open") return link;
    if (turn) return "hearing";
    if (playing) return "speaking";
    if (response) return "thinking";
    if (microphone.on) return muted ? "muted" : "listening";
    return "ready";
  }

  function refresh() {
    const now = state();
    const up = link === "open";
    root.dataset.state = now;
    const again = wait ? ` Trying again in ${Math.max(1, Math.round(wait))} s.` : "";
    const words = WORDS[now] + again;
    if ($("state").textContent !== words) $("state").textContent = words;
    $("talk").disabled = !up && !microphone.on;
    $("talk").textContent = microphone.on ? "Stop talking" : "Talk";
    $("talk").setAttribute("aria-pressed", microphone.on);
    $("mute").disabled = !microphone.on;
    $("mute").textContent = muted ? "Unmute" : "Mute";
    $("mute").setAttribute("aria-pressed", muted);
    $("stop").disabled = !response && !playing;
    $("show").setAttribute("aria-pressed", camera.on);
    $("camera").hidden = !camera.on;
    $("send").disabled = !up || !($("text").value.trim() || attached);
  }

  function alert(text) {
    $("alert").textContent = text;
    $("alert").hidden = !text;
  }

  // --- sound ------------------------------------------------------------------------------------

  const microphone = new Microphone(
    (pcm, level) => {
      client.send("input_audio_buffer.append", { audio: encodePcm(pcm) });
      const loudness = Math.max(0, 1 + Math.log10(Math.max(level, 1e-6)) / 2.5); // -50 to 0 dB
      $("level").firstElementChild.style.transform = `scaleX(${Math.min(1, loudness)})`;
    },
    () => {
      hangUp();
      alert("The microphone was unplugged.");
    },
  );

  const speaker = new Speaker(({ left }) => {
    playing = left > 0;
    refresh();
  });

  async function talk() {
    alert("");
    if (microphone.on) return hangUp();
    $("talk").disabled = true;
    try {
      await Promise.all([speaker.start(), microphone.start()]);
    } catch (error) {
      if (!(error instanceof DeviceError)) throw error;
      alert(error.message);
    }
    refresh();
  }

  function hangUp() {
    microphone.stop();
    muted = false;
    $("level").firstElementChild.style.transform = "scaleX(0)";
    if (turn) {
      // What was said so far is a turn: silence lets the server see its end.
      client.send("input_audio_buffer.append", { audio: encodePcm(new Int16Array(1.5 * RATE)) });
    }
    refresh();
  }

  /** The answer is over as far as the user is concerned: silence, and the server learns what was heard. */
  async function interrupt() {
    const running = response;
    if (running) stopped.add(running);
    playing = false;
    const { item, heard, left } = await speaker.flush();
    const entry = item && transcript.find(item);
    if (entry && (left > 0 || entry.response === running)) {
      client.send("conversation.item.truncate", {
        item_id: item,
        content_index: 0,
        audio_end_ms: Math.min(heard, Math.floor(entry.received)),
      });
      entry.cut(heard);
    }
    refresh();
  }

  function stopAnswer() {
    if (response) client.send("response.cancel", { response_id: response });
    return interrupt();
  }

  // --- pictures ---------------------------------------------------------------------------------

  function attach(url) {
    attached = url;
    $("thumb").hidden = !url;
    if (url) $("thumb").querySelector("img").src = url;
    refresh();
  }

  async function take(files) {
    const file = [...files].find((one) => one.type.startsWith("image/"));
    if (!file) return false;
    try {
      attach(await readPicture(file));
      alert("");
    } catch (error) {
      alert(error.message);
    }
    return true;
  }

  function show(url) {
    if (!url || !turn) return;
    client.send("input_image_buffer.append", { image: bare(url) });
    transcript.entry("user", turn).picture(url);
  }

  setInterval(() => show(camera.frame()), FRAME_EVERY);

  // --- typing -----------------------------------------------------------------------------------

  async function send() {
    const text = $("text").value.trim();
    if (!client.open || !(text || attached)) return;
    alert("");
    if ($("aloud").checked) speaker.start(); // within the key press
    if (response || playing) await stopAnswer();
    const pictures = [attached, camera.frame()].filter(Boolean);
    const content = pictures.map((url) => ({ type: "input_image", image_url: url }));
    if (text) content.push({ type: "input_text", text });
    const entry = transcript.entry("user", `typed-${++typed}`);
    entry.text = text;
    for (const url of pictures) entry.picture(url);
    client.ask(content);
    $("text").value = "";
    grow();
    attach(null);
  }

  function grow() {
    const box = $("text");
    box.style.height = "auto";
    box.style.height = `${Math.min(box.scrollHeight + 2, 160)}px`;
  }

  // --- what the server says -----------------------------------------------------------------------

  const on = (type, handler) =>
    client.addEventListener(type, ({ detail }) => {
      handler(detail);
      refresh();
    });

  on("link", async ({ state: now, wait: pause, reason }) => {
    const before = link;
    const lost = before === "open" && now !== "open";
    if (now !== "connecting" || !["full", "gone", "starting"].includes(link)) link = now;
    wait = pause ?? 0;
    if (now === "open" && !$("aloud").checked) modalities();
    if (now === "open" && before !== "connecting" && before !== "gone") alert("");
    if (lost) {
      turn = response = null;
      speaker.flush();
      playing = false;
      if (reason) alert(`The server ended the session: ${reason}`);
      if (transcript.used) transcript.line("A new session begins here; what was said above is forgotten.");
    }
    // While the models load, the server leaves the session waiting or closes it.
    if (now !== "open" && (await health()) === "starting" && link === now) {
      link = "starting";
      refresh();
    }
  });

  async function health() {
    try {
      return (await (await fetch(new URL("../../health", import.meta.url))).json()).status;
    } catch {
      return null; // nothing answers: the state line says so already
    }
  }

  on("error", ({ error }) => alert(error.message));

  on("input_audio_buffer.speech_started", ({ item_id }) => {
    turn = item_id;
    transcript.entry("user", item_id);
    if (response || playing) interrupt();
    if (attached) {
      show(attached);
      attach(null);
    }
    show(camera.frame());
  });

  on("input_audio_buffer.speech_stopped", () => {
    show(camera.frame());
    turn = null;
  });

  on("input_audio_buffer.committed", () => (turn = null));

  on("input_audio_buffer.cleared", () => {
    if (turn) transcript.remove(turn);
    turn = null;
  });

  on("conversation.item.deleted", ({ item_id }) => transcript.remove(item_id));

  on("conversation.item.input_audio_transcription.delta", ({ item_id, delta }) => {
    const entry = transcript.entry("user", item_id);
    entry.text += delta;
    transcript.follow();
  });

  on("conversation.item.input_audio_transcription.completed", ({ item_id, transcript: text }) => {
    const entry = transcript.entry("user", item_id);
    if (text.trim() || entry.image) entry.text = text.trim();
    else transcript.remove(item_id);
    transcript.follow();
  });

  on("conversation.item.input_audio_transcription.failed", ({ item_id }) => {
    transcript.entry("user", item_id).text = "(not understood)";
  });

  on("response.created", ({ response: { id } }) => (response = id));

  on("response.output_item.added", ({ item, response_id }) => {
    if (item.type !== "message" || stopped.has(response_id)) return;
    transcript.entry("assistant", item.id).response = response_id;
  });

  function addWords({ response_id, item_id, delta }) {
    if (stopped.has(response_id)) return;
    const entry = transcript.entry("assistant", item_id);
    entry.response = response_id;
    entry.text += delta;
    transcript.follow();
  }
  on("response.output_audio_transcript.delta", addWords);
  on("response.output_text.delta", addWords);

  on("response.output_audio.delta", ({ response_id, item_id, delta }) => {
    if (stopped.has(response_id)) return;
    const pcm = decodePcm(delta);
    const entry = transcript.entry("assistant", item_id);
    entry.response = response_id;
    entry.received += (pcm.length / RATE) * 1000;
    playing = true;
    speaker.play(item_id, pcm);
  });

  on("response.done", ({ response: done }) => {
    if (response === done.id) response = null;
    for (const [id, entry] of transcript.ofResponse(done.id)) {
      entry.note("pending", false);
      if (!entry.text && !entry.image) transcript.remove(id);
      else if (done.timings) entry.timings(done.timings);
    }
    if (done.status === "failed") {
      alert(done.status_details?.error?.message ?? "The answer failed; ask again.");
    }
    transcript.follow();
  });

  // --- what the user does -------------------------------------------------------------------------

  function modalities() {
    const output = $("aloud").checked ? ["audio"] : ["text"];
    client.send("session.update", { session: { type: "realtime", output_modalities: output } });
  }

  $("talk").onclick = talk;
  $("mute").onclick = () => {
    muted = !muted;
    microphone.mute(muted);
    refresh();
  };
  $("stop").onclick = stopAnswer;
  $("aloud").onchange = modalities;
  $("show").onclick = async () => {
    alert("");
    try {
      if (camera.on) camera.stop();
      else await camera.start();
    } catch (error) {
      camera.stop();
      alert(error.message);
    }
    refresh();
  };
  $("attach").onclick = () => $("file").click();
  $("file").onchange = async () => {
    await take($("file").files);
    $("file").value = "";
  };
  $("unattach").onclick = () => {
    attach(null);
    $("text").focus();
  };
  $("form").onsubmit = (event) => {
    event.preventDefault();
    send();
  };
  $("text").oninput = () => {
    grow();
    refresh();
  };
  $("text").onkeydown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    }
  };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && (response || playing)) stopAnswer();
  });
  document.addEventListener("paste", async (event) => {
    if ([...event.clipboardData.files].some((file) => file.type.startsWith("image/"))) {
      event.preventDefault();
      await take(event.clipboardData.files);
    }
  });
  root.addEventListener("dragover", (event) => {
    event.preventDefault();
    root.classList.add("omni-drop");
  });
  root.addEventListener("dragleave", () => root.classList.remove("omni-drop"));
  root.addEventListener("drop", async (event) => {
    event.preventDefault();
    root.classList.remove("omni-drop");
    if (!(await take(event.dataTransfer.files))) alert("Only pictures can be dropped here.");
  });

  refresh();
  client.connect();
}

// Gradio draws the page after this script has loaded.
function whenDrawn() {
  const root = document.getElementById("omni");
  if (!root) return false;
  start(root);
  return true;
}

if (!whenDrawn()) {
  const watch = new MutationObserver(() => whenDrawn() && watch.disconnect());
  watch.observe(document.documentElement, { childList: true, subtree: true });
}
