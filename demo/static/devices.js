// Which microphone and which speaker, also after they were pulled out and plugged in again.

import { Speaker } from "./audio.js";
import { make } from "./entries.js";
import { onLanguage, t } from "./i18n.js";

const STORED = "omni-devices";
const KINDS = { microphone: "audioinput", speaker: "audiooutput" };

/** The choices in `section`. `onChange(kind)` is called when another device is to be used. */
export class Devices {
  #chosen = {}; // kind -> {id, label}
  #there = [];
  #section;
  #onChange;

  constructor(section, { onChange }) {
    this.#section = section;
    this.#onChange = onChange;
    try {
      this.#chosen = JSON.parse(localStorage.getItem(STORED)) ?? {};
    } catch {
      // not ours
    }
    navigator.mediaDevices?.addEventListener("devicechange", () => this.#changed());
    onLanguage(() => this.#draw());
    this.#draw();
    this.look();
  }

  /** The id of the chosen microphone or speaker; null: the system's default. */
  id(kind) {
    return this.#find(kind)?.deviceId ?? null;
  }

  /** See what is there: browsers tell names only once the microphone was allowed. */
  async look() {
    this.#there = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
    this.#draw();
  }

  async #changed() {
    const before = Object.keys(KINDS).map((kind) => this.id(kind));
    await this.look();
    Object.keys(KINDS).forEach((kind, i) => before[i] !== this.id(kind) && this.#onChange(kind));
  }

  /** The chosen device, by its id, or by its name when it has a new one. */
  #find(kind) {
    const { id, label } = this.#chosen[kind] ?? {};
    const all = this.#of(kind);
    return all.find((one) => one.deviceId === id) ?? all.find((one) => label && one.label === label);
  }

  /** Besides "default", which stands for another one. */
  #of(kind) {
    const fits = (one) => one.kind === KINDS[kind] && one.deviceId;
    return this.#there.filter((one) => fits(one) && !/^(default|communications)$/.test(one.deviceId));
  }

  #draw() {
    const kinds = Speaker.canChoose ? ["microphone", "speaker"] : ["microphone"];
    const focused = document.activeElement?.id;
    this.#section.replaceChildren(...kinds.map((kind) => this.#row(kind)), this.#meter());
    if (focused) this.#section.querySelector(`#${CSS.escape(focused)}`)?.focus();
  }

  #row(kind) {
    const row = make("div", "omni-field");
    const label = make("label", "", kind);
    const select = make("select");
    select.id = label.htmlFor = `omni-set-${kind}`;
    select.add(new Option(t("defaultDevice"), ""));
    for (const { deviceId, label } of this.#of(kind)) select.add(new Option(label, deviceId));
    select.value = this.id(kind) ?? "";
    select.onchange = () => this.#choose(kind, select);
    row.append(label, select);
    return row;
  }

  #choose(kind, { value: id, selectedOptions: [{ label }] }) {
    if (id) this.#chosen[kind] = { id, label };
    else delete this.#chosen[kind];
    localStorage.setItem(STORED, JSON.stringify(this.#chosen));
    this.#onChange(kind);
  }

  #meter() {
    const row = make("div", "omni-field");
    const label = make("span", "", "loudness");
    label.id = "omni-loudness";
    const meter = make("div", "omni-meter");
    meter.setAttribute("role", "meter");
    meter.setAttribute("aria-labelledby", label.id);
    meter.setAttribute("aria-valuemin", 0);
    meter.setAttribute("aria-valuemax", 100);
    meter.setAttribute("aria-valuenow", 0);
    row.append(label, meter);
    return row;
  }

  /** How loud the microphone is, 0 to 1. */
  set level(level) {
    const meter = this.#section.querySelector(".omni-meter");
    meter.setAttribute("aria-valuenow", Math.round(100 * level));
  }
}
