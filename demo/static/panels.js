// The sheets at the side of the page: settings, earlier conversations, what to take away.

import { exportPanel } from "./download.js";
import { make } from "./entries.js";
import { onLanguage, t, translate } from "./i18n.js";
import { SessionStore, Sessions } from "./sessions.js";
import { Settings, interfacePanel } from "./settings.js";

/**
 * Wire the sheets of the page. `open(id)` resumes a conversation, with null it begins a new one;
 * `onChange(name)` follows the settings, which are given back.
 */
export function wirePanels(root, { base, client, transcript, open, onChange }) {
  const $ = (name) => root.querySelector(`#omni-${name}`);
  const store = new SessionStore(base, () => client.apiKey);
  const settings = new Settings($("session"), { client, store, onChange });
  interfacePanel($("interface"));
  const say = (key, values) => {
    $("saved").textContent = t(key, values);
  };
  const fetchSound = (name) => store.sound(client.sessionId, name);
  exportPanel($("export"), { transcript, client, fetchSound, make, say });

  const show = async (id) => {
    for (const sheet of root.querySelectorAll("dialog[open]")) sheet.close();
    transcript.clear();
    await open(id);
    if (id) await store.restore(id, transcript).catch(() => {}); // the words are there without
  };
  const sessions = new Sessions($("sessions"), { store, current: () => client.sessionId, open: show });

  const sheets = { settings: () => {}, history: () => sessions.show(), save: () => say("exportHint") };
  for (const [name, fill] of Object.entries(sheets)) {
    const sheet = $(name);
    $(`open-${name}`).onclick = () => {
      fill();
      sheet.showModal();
    };
    sheet.querySelector(".omni-close").onclick = () => sheet.close();
    sheet.onclick = ({ target }) => {
      if (target === sheet) sheet.close(); // beside it
    };
  }
  $("new").onclick = () => show(null);

  translate(root);
  onLanguage(() => translate(root));
  const model = () => {
    $("model").textContent = client.session.model ?? "";
  };
  client.on("session.created", model);
  client.on("session.updated", model);
  return settings;
}
