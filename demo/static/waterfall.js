// Where the time between the end of a question and the first sound of its answer went.

import { t } from "./i18n.js";

// All but the last are stamps of the server; the page itself stamps what came out of the speaker.
const STAGES = [
  "silence",
  "turn_end",
  "transcript",
  "first_token",
  "first_clause",
  "first_audio",
  "heard",
];

export const seconds = (ms) => t("seconds", { n: (ms / 1000).toFixed(2) });

/** A line that opens to a row per stage: `stamps` are ms since the end of speech. */
export class Waterfall {
  #stamps = {};

  constructor() {
    this.element = document.createElement("details");
    this.element.className = "omni-timings";
    this.element.hidden = true;
  }

  /** Newer stamps join those that are known. */
  update(stamps) {
    Object.assign(this.#stamps, stamps);
    this.draw();
  }

  get stamps() {
    return this.#stamps;
  }

  draw() {
    const stages = STAGES.filter((name) => this.#stamps[name] > 0).sort(
      (a, b) => this.#stamps[a] - this.#stamps[b],
    );
    this.element.hidden = !stages.length;
    if (!stages.length) return;
    const last = this.#stamps[stages.at(-1)];
    const summary = document.createElement("summary");
    const answered = this.#stamps.heard ?? this.#stamps.first_audio ?? last;
    summary.textContent = t("answeredAfter", { time: seconds(answered) });
    const table = document.createElement("dl");
    table.setAttribute("aria-label", t("waterfall"));
    let before = 0;
    for (const stage of stages) {
      const at = this.#stamps[stage];
      const name = document.createElement("dt");
      name.textContent = t(`stage_${stage}`);
      const value = document.createElement("dd");
      value.dataset.stage = stage;
      value.title = t(stage === "heard" ? "onPage" : "onServer");
      const bar = document.createElement("span");
      bar.className = "omni-bar";
      bar.style.setProperty("--from", before / last);
      bar.style.setProperty("--to", at / last);
      const time = document.createElement("span");
      time.textContent = seconds(at);
      value.append(bar, time);
      table.append(name, " ", value);
      before = at;
    }
    this.element.replaceChildren(summary, table);
  }
}
