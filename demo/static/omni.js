// The page: wires its parts to each other and to the session.

import { Answers } from "./answers.js";
import { DeviceError } from "./audio.js";
import { Awake } from "./awake.js";
import { Composer } from "./composer.js";
import { Connection, earlier } from "./connection.js";
import { Devices } from "./devices.js";
import { Recorder } from "./download.js";
import { onLanguage, t } from "./i18n.js";
import { Latency } from "./latency.js";
import { OmniClient } from "./omni-client.js";
import { wirePanels } from "./panels.js";
import { Show } from "./show.js";
import { Talk } from "./talk.js";
import { Transcript } from "./transcript.js";

const base = new URL("../../", import.meta.url); // of the server

function start(root) {
  const $ = (name) => root.querySelector(`#omni-${name}`);
  const labelOf = (button) => $(button).querySelector(".omni-label");
  const client = new OmniClient({ url: base, ...earlier() });
  const transcript = new Transcript($("log"), $("empty"), {
    latest: $("latest"),
    announce: (text) => ($("announce").textContent = text),
  });
  const latency = new Latency(client, transcript);
  const awake = new Awake();

  // --- what can be seen of the state ------------------------------------------------------------

  function state() {
    if (!connection.open) return connection.link;
    if (talk.speaking) return "hearing";
    if (answers.playing) return "speaking";
    if (answers.making) return "thinking";
    if (talk.on && !talk.push) return talk.muted ? "muted" : "listening";
    return talk.push ? "readyToPush" : "ready";
  }

  function refresh() {
    const now = state();
    root.dataset.state = now;
    const { open, wait } = connection;
    const again = wait ? ` ${t("again", { n: Math.max(1, Math.round(wait)) })}` : "";
    const words = t(now) + again;
    if ($("state").textContent !== words) {
      $("state").textContent = words;
      // Turns are heard; to people who do not see the page only the connection has to be told.
      if (!open || !$("announce").dataset.open) $("announce").textContent = words;
      $("announce").dataset.open = open ? "yes" : "";
    }
    const calling = talk.on && !talk.push;
    awake.wanted = talk.on;
    label($("empty").querySelector("p"), talk.push ? "emptyPush" : "empty");
    $("talk").disabled = !open && !talk.on;
    $("talk").setAttribute("aria-pressed", calling || talk.held);
    if (talk.push) label(labelOf("talk"), talk.held ? "releaseToSend" : "holdToTalk");
    else label(labelOf("talk"), talk.on ? "stopTalking" : "talk");
    $("mute").disabled = !calling;
    $("mute").setAttribute("aria-pressed", talk.muted);
    label(labelOf("mute"), talk.muted ? "unmute" : "mute");
    $("stop").disabled = !answers.busy;
    $("show").setAttribute("aria-pressed", show.source === "camera");
    $("share").setAttribute("aria-pressed", show.source === "screen");
    $("camera").hidden = !show.source;
    $("send").disabled = !open || !composer.filled;
  }

  /** Give an element the text of a key. */
  function label(element, key) {
    if (element.dataset.t === key) return;
    element.dataset.t = key;
    element.textContent = t(key);
  }

  function say(text) {
    $("alert").textContent = text;
    $("alert").hidden = !text;
  }

  /** Do what may fail for want of a device, and say so. */
  async function attempt(action) {
    say("");
    try {
      await action();
    } catch (error) {
      if (!(error instanceof DeviceError)) throw error;
      say(error.message);
    }
    refresh();
  }

  // --- the parts ----------------------------------------------------------------------------------

  const devices = new Devices($("devices"), {
    onChange: (kind) => {
      if (kind === "speaker") answers.speaker.choose();
      else if (talk.on && devices.id(kind) !== talk.microphone.current) attempt(() => talk.start());
    },
  });
  const connection = new Connection(root, {
    ...{ base, client, transcript, say, onChange: refresh },
    onResumed: () => settings.store.restore(client.sessionId, transcript).catch(() => {}),
  });
  const answers = new Answers({
    ...{ client, transcript, latency, say, onChange: refresh },
    device: () => devices.id("speaker"),
  });
  const talk = new Talk({
    client,
    device: () => devices.id("microphone"),
    on: {
      piece: (pcm) => {
        latency.sent(pcm.length);
        recorder.feed(pcm);
      },
      level: (level) => {
        root.style.setProperty("--level", level.toFixed(2));
        devices.level = level;
      },
      begin: () => {
        if (answers.busy) talk.push ? answers.stop() : answers.interrupt();
        if (!talk.push) composer.hand(); // before the turn's own message
        show.send();
      },
      finish: () => {
        if (talk.push) composer.hand();
        if (!talk.muted) show.send({ sharp: true });
      },
      asked: () => latency.asked(),
      cleared: (item) => transcript.remove(item),
      unplugged: () => say(t("unplugged")),
      change: refresh,
    },
  });
  const recorder = new Recorder(client, transcript);
  const show = new Show($("camera"), {
    ...{ client, transcript, onChange: refresh },
    speaking: () => talk.speaking && !talk.muted,
    turn: () => talk.turn,
  });
  const composer = new Composer(root, {
    ...{ client, transcript, say, onChange: refresh },
    frame: () => show.frame(),
    before: async () => {
      say("");
      if (settings.aloud) answers.speaker.start(); // within the key press
      if (answers.busy) await answers.stop();
    },
    asked: () => latency.asked(),
  });
  const settings = wirePanels(root, {
    ...{ base, client, transcript },
    open: async (sessionId) => {
      talk.hangUp();
      await answers.drop();
      await connection.change(sessionId);
    },
    onChange: () => follow(),
  });
  const follow = () => {
    recorder.holding = talk.push = settings.pushToTalk;
    refresh();
  };

  client.on("error", ({ error }) => settings.owns(error) || say(error.message));
  transcript.listen(client, { stopped: answers.stopped, aloud: () => settings.aloud });

  // --- what the user does -------------------------------------------------------------------------

  const call = () =>
    talk.on
      ? talk.hangUp()
      : attempt(async () => {
          $("talk").disabled = true;
          await Promise.all([answers.speaker.start(), talk.start()]);
          await devices.look();
        });
  const press = () => {
    if (!connection.open || talk.held) return;
    answers.speaker.start(); // within the click
    attempt(() => talk.press());
  };
  const release = () => talk.release();

  // Held by a pointer, by the space bar, or begun and ended by a click of those who cannot hold.
  let pointed = false;
  $("talk").onpointerdown = (event) => {
    if (!talk.push || event.button !== 0) return;
    pointed = true;
    event.currentTarget.setPointerCapture(event.pointerId);
    press();
  };
  $("talk").onpointerup = $("talk").onpointercancel = release;
  $("talk").oncontextmenu = (event) => talk.push && event.preventDefault();
  $("talk").onclick = () => {
    if (!talk.push) call();
    else if (!pointed) talk.held ? release() : press();
    pointed = false;
  };
  const holds = ({ key, target }) =>
    key === " " &&
    talk.push &&
    (target === $("talk") || !target.closest("button, input, textarea, select, summary, dialog, a"));
  document.addEventListener("keydown", (event) => {
    if (holds(event)) {
      event.preventDefault();
      if (!event.repeat) press();
    }
    const sheet = root.querySelector("dialog[open]"); // there it closes the sheet
    if (event.key === "Escape" && !sheet && answers.busy) answers.stop();
  });
  document.addEventListener("keyup", (event) => {
    if (!holds(event)) return;
    event.preventDefault();
    release();
  });
  window.addEventListener("blur", release);

  $("mute").onclick = () => talk.mute(!talk.muted);
  $("stop").onclick = () => answers.stop();
  $("show").onclick = () => attempt(() => show.toggle("camera"));
  $("share").onclick = () => attempt(() => show.toggle("screen"));
  $("share").hidden = !Show.canShare;
  $("turn").onclick = () => attempt(() => show.turnRound());

  onLanguage(refresh);
  follow();
  client.connect();
  window.omniPage = { measurements: latency.measurements };
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
