// What the user may choose: the settings of the session, and the looks of the page.

import { make } from "./entries.js";
import { LANGUAGES, language, onLanguage, setLanguage, t } from "./i18n.js";

const STORED = "omni-settings";
const THEME = "omni-theme";
const DEBOUNCE = 400; // ms after the last key or movement
const SPOKEN = "ar bn cs da de el en es fi fr he hi hu id it ja ko nl no pl pt ro ru sv th tr uk vi zh";

const SEMANTIC = /^turns_(low|medium|high)$/;

function turnDetection({ turns, silence }) {
  const [, eagerness] = SEMANTIC.exec(turns) ?? [];
  if (eagerness) return { type: "semantic_vad", eagerness };
  return turns === "turns_push" ? null : { type: "server_vad", silence_duration_ms: silence };
}

const input = (fields) => ({ audio: { input: fields } });
const output = (fields) => ({ audio: { output: fields } });

/**
 * Per field its default, the part of the session that it sets, how that part is named in errors,
 * and how it is asked for.
 */
const FIELDS = {
  aloud: {
    ...{ kind: "check", initial: true, param: "session.output_modalities" },
    wire: ({ aloud }) => ({ output_modalities: [aloud ? "audio" : "text"] }),
  },
  turns: {
    ...{ kind: "select", initial: "turns_medium", param: "session.audio.input.turn_detection" },
    options: () =>
      ["medium", "low", "high", "silence", "push"].map((name) => [
        `turns_${name}`,
        t(`turns_${name}`),
      ]),
    wire: (values) => input({ turn_detection: turnDetection(values) }),
  },
  silence: {
    ...{ kind: "range", initial: 500, min: 100, max: 2000, step: 50 },
    param: "session.audio.input.turn_detection.silence_duration_ms",
    shown: ({ turns }) => turns === "turns_silence",
    say: (n) => t("milliseconds", { n }),
    wire: (values) => input({ turn_detection: turnDetection(values) }),
  },
  voice: {
    ...{ kind: "select", initial: "auto", param: "session.audio.output.voice" },
    options: ({ voices }) => [["auto", t("automatic")], ...voices.map((name) => [name, name])],
    wire: ({ voice }) => output({ voice }),
  },
  speed: {
    ...{ kind: "range", initial: 1, min: 0.5, max: 1.5, step: 0.05 },
    param: "session.audio.output.speed",
    say: (n) => `${n.toFixed(2)}×`,
    wire: ({ speed }) => output({ speed }),
  },
  spoken: {
    ...{ kind: "select", initial: "", param: "session.audio.input.transcription.language" },
    options: ({ languages }) => {
      const names = new Intl.DisplayNames([language()], { type: "language" });
      const named = languages.map((code) => [code, names.of(code)]);
      return [["", t("detect")], ...named.sort((a, b) => a[1].localeCompare(b[1], language()))];
    },
    wire: ({ spoken }) => input({ transcription: { language: spoken || null } }),
  },
  noise: {
    ...{ kind: "select", initial: "", param: "session.audio.input.noise_reduction" },
    options: () => [
      ["", t("noise_none")],
      ["near_field", t("noise_near_field")],
      ["far_field", t("noise_far_field")],
    ],
    wire: ({ noise }) => input({ noise_reduction: noise ? { type: noise } : null }),
  },
  instructions: {
    ...{ kind: "text", initial: "", param: "session.instructions" },
    wire: ({ instructions }) => ({ instructions: instructions || null }),
  },
  temperature: {
    ...{ kind: "range", initial: null, min: 0, max: 1.5, step: 0.05, param: "session.temperature" },
    say: (n) => n.toFixed(2),
    wire: ({ temperature }) => ({ temperature }),
  },
};

const isObject = (value) => typeof value === "object" && value !== null;

function merge(one, other) {
  const merged = { ...one };
  for (const [key, value] of Object.entries(other)) {
    merged[key] = isObject(value) && isObject(merged[key]) ? merge(merged[key], value) : value;
  }
  return merged;
}

/**
 * The panel in `section`; what is chosen is kept in the browser and sent to each session of
 * `client`. `store` tells which voices and languages the server has, `onChange(name)` follows.
 */
export class Settings {
  #chosen = {};
  #defaults = {}; // what the server does where nothing is chosen
  #known = { voices: [], languages: SPOKEN.split(" ") };
  #timers = {};
  #rows = {};

  constructor(section, { client, store, onChange = () => {} }) {
    this.section = section;
    this.client = client;
    this.store = store;
    this.onChange = onChange;
    try {
      this.#chosen = JSON.parse(localStorage.getItem(STORED)) ?? {};
    } catch {
      // not ours, or of another time
    }
    client.on("client.connected", ({ resumed }) => this.#connected(resumed));
    onLanguage(() => this.#draw());
    this.#draw();
  }

  /** All that is chosen, with the defaults of what is not. */
  get values() {
    const initial = Object.entries(FIELDS).map(([name, field]) => [name, field.initial]);
    return { ...Object.fromEntries(initial), ...this.#chosen };
  }

  /** Whether the user holds a button (or key) while speaking. */
  get pushToTalk() {
    return this.values.turns === "turns_push";
  }

  /** Whether answers are spoken. */
  get aloud() {
    return this.values.aloud;
  }

  /** Choose as if in the panel. */
  set(name, value) {
    if (value === FIELDS[name].initial) delete this.#chosen[name];
    else this.#chosen[name] = value;
    localStorage.setItem(STORED, JSON.stringify(this.#chosen));
    this.#show();
    this.#problem(name, "");
    clearTimeout(this.#timers[name]);
    const { kind } = FIELDS[name];
    const wait = kind === "text" || kind === "range" ? DEBOUNCE : 0;
    this.#timers[name] = setTimeout(() => this.#send([name]), wait);
    this.onChange(name);
  }

  /** What the server does by itself again. */
  reset() {
    const names = Object.keys(this.#chosen);
    this.#chosen = {};
    localStorage.removeItem(STORED);
    for (const name of Object.keys(FIELDS)) this.#problem(name, "");
    this.#draw();
    this.#send(names);
    for (const name of names) this.onChange(name);
  }

  /** Whether an error of the server is told beside its field. */
  owns(error) {
    return Boolean(this.#fieldOf(error));
  }

  #connected(resumed) {
    if (!resumed) this.#defaults = this.client.session;
    this.#learn();
    this.#send(Object.keys(this.#chosen), input({ transcription: { partial: true } }));
    this.#show();
  }

  async #learn() {
    const known = { ...this.#known };
    try {
      for (const { voices, languages } of await this.store.models()) {
        if (voices) known.voices = voices;
        if (languages?.length) known.languages = languages;
      }
    } catch {
      return; // the session works without it, and says itself when the server is gone
    }
    if (JSON.stringify(known) === JSON.stringify(this.#known)) return;
    this.#known = known;
    this.#draw();
  }

  /** One update with all fields; those that the server refuses are named, the others count. */
  async #send(names, more = {}) {
    if (!this.client.open) return; // the next connection gets all of them
    const wire = names.map((name) => FIELDS[name].wire(this.values)).reduce(merge, more);
    if (!Object.keys(wire).length) return;
    try {
      await this.client.updateSession(wire);
      this.#show();
    } catch (error) {
      const wrong = this.#fieldOf(error);
      if (!wrong) return; // the page tells it
      const fixed = error.code === "cannot_update_voice";
      this.#problem(wrong, fixed ? t("voiceFixed") : error.message);
      const others = names.filter((name) => name !== wrong);
      if (others.length < names.length) await this.#send(others, more);
    }
  }

  #fieldOf({ param }) {
    const names = Object.keys(FIELDS).filter((name) => param?.startsWith(FIELDS[name].param));
    return names.sort((a, b) => FIELDS[b].param.length - FIELDS[a].param.length)[0];
  }

  #problem(name, text) {
    const { problem, control } = this.#rows[name];
    problem.textContent = text;
    problem.hidden = !text;
    control.setAttribute("aria-invalid", Boolean(text));
  }

  // --- the panel --------------------------------------------------------------------------------

  #draw() {
    const problems = Object.entries(this.#rows).map(([name, row]) => [name, row.problem.textContent]);
    const focused = document.activeElement?.id;
    const rows = Object.entries(FIELDS).map(([name, field]) => this.#row(name, field));
    const reset = make("button", "", "reset");
    reset.type = "button";
    reset.onclick = () => this.reset();
    this.section.replaceChildren(...rows, reset);
    this.#show();
    for (const [name, text] of problems) this.#problem(name, text);
    if (focused && this.section.contains(document.getElementById(focused))) {
      document.getElementById(focused).focus();
    }
  }

  #row(name, field) {
    const row = make("div", "omni-field");
    const label = make("label", "", name);
    const shown = make("output");
    const control = this.#control(name, field);
    control.id = `omni-set-${name}`;
    control.setAttribute("aria-describedby", `omni-wrong-${name}`);
    label.htmlFor = shown.htmlFor = control.id;
    const problem = make("p", "omni-problem");
    problem.id = `omni-wrong-${name}`;
    problem.setAttribute("role", "alert");
    problem.hidden = true;
    row.append(label, ...(field.say ? [shown] : []), control, problem);
    this.#rows[name] = { row, control, problem, shown };
    return row;
  }

  #control(name, field) {
    if (field.kind === "select") {
      const select = make("select");
      for (const [value, text] of field.options(this.#known)) select.add(new Option(text, value));
      select.onchange = () => this.set(name, select.value);
      return select;
    }
    if (field.kind === "text") {
      const box = make("textarea");
      Object.assign(box, { rows: 4, maxLength: 8000 });
      box.oninput = () => this.set(name, box.value);
      return box;
    }
    const control = make("input");
    if (field.kind === "check") {
      control.type = "checkbox";
      control.className = "omni-switch";
      control.onchange = () => this.set(name, control.checked);
      return control;
    }
    const { min, max, step } = field;
    Object.assign(control, { type: "range", min, max, step });
    control.oninput = () => this.set(name, Number(control.value));
    return control;
  }

  /** Put the values into the controls. */
  #show() {
    const { values } = this;
    for (const [name, { row, control, shown }] of Object.entries(this.#rows)) {
      const field = FIELDS[name];
      const value = values[name] ?? this.#defaults[name] ?? "";
      row.hidden = field.shown ? !field.shown(values) : false;
      if (field.kind === "check") control.checked = value;
      else if (control !== document.activeElement || field.kind !== "text") control.value = value;
      if (field.kind === "select" && control.selectedIndex < 0 && value) {
        control.add(new Option(value, value, true, true)); // of another server: it will say
      }
      if (field.say) shown.textContent = field.say(Number(control.value));
    }
    this.#rows.instructions.control.placeholder =
      this.#defaults.instructions ?? t("instructionsHint");
  }
}

/** How the page looks: its theme and its language. */
export function interfacePanel(section) {
  const root = document.documentElement;
  const paint = (theme) => {
    root.dataset.omniTheme = theme;
    localStorage.setItem(THEME, theme);
  };
  paint(localStorage.getItem(THEME) ?? "system");
  const row = (name, options, value, choose) => {
    const field = make("div", "omni-field");
    const label = make("label", "", name);
    const select = make("select");
    select.id = label.htmlFor = `omni-set-${name}`;
    for (const [code, text] of options) select.add(new Option(text, code));
    select.value = value;
    select.onchange = () => choose(select.value);
    field.append(label, select);
    return field;
  };
  const draw = () => {
    const focused = document.activeElement?.id;
    const themes = ["system", "light", "dark"].map((name) => [name, t(`theme_${name}`)]);
    section.replaceChildren(
      row("theme", themes, root.dataset.omniTheme, paint),
      row("pageLanguage", Object.entries(LANGUAGES), language(), setLanguage),
    );
    section.querySelector(`#${focused || "none"}`)?.focus();
  };
  onLanguage(draw);
  draw();
}
