// Which words of an answer are being heard: sound in samples to places in the text.

import { RATE } from "./omni-client.js";

const LETTER = RATE / 14; // samples, until a clause has been heard whole
const IDEOGRAM = RATE / 4.5;
const WIDE = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}]/u;
const segmenter = new Intl.Segmenter(undefined, { granularity: "word" });

// Highlights paint text without touching it: selections stay, and nothing moves.
const paint = globalThis.CSS?.highlights && { now: new Highlight(), coming: new Highlight() };
if (paint) {
  CSS.highlights.set("omni-now", paint.now);
  CSS.highlights.set("omni-coming", paint.coming);
}

/** How many samples the words of a clause take, guessed. */
const guess = (text) => {
  let length = 0;
  for (const letter of text) length += WIDE.test(letter) ? IDEOGRAM : LETTER;
  return length;
};

/** The sound of one answer, clause by clause, and the element that has its text. */
export class SpokenWords {
  #clauses = []; // {text, start: first sample, from, to: its place in the text}
  #word = null;

  /** Samples that have come so far. */
  received = 0;
  /** Whether all of it has come. */
  whole = false;

  constructor(element) {
    this.element = element;
  }

  /** More sound; `clause` says which words begin with it. */
  add(samples, clause) {
    if (clause) this.#clauses.push({ text: clause, start: this.received, from: null, to: null });
    this.received += samples;
  }

  /** How many characters of the text are heard by then; within a clause evenly by letters. */
  at(samples) {
    const text = this.element.textContent;
    this.#locate(text);
    const clauses = this.#clauses.length
      ? this.#clauses
      : [{ text, start: 0, from: 0, to: text.length }];
    const index = Math.max(0, clauses.findLastIndex(({ start }) => start <= samples));
    const { start, from, to, text: words } = clauses[index];
    const next = clauses[index + 1]?.start;
    const end = next ?? (this.whole ? this.received : Math.max(this.received, start + guess(words)));
    const share = end > start ? Math.min(1, Math.max(0, (samples - start) / (end - start))) : 1;
    return Math.round(from + share * (to - from));
  }

  /** Where the words end that were heard whole by then. */
  wordsUntil(samples) {
    const text = this.element.textContent;
    const end = this.at(samples);
    const word = segmenter.segment(text).containing(end);
    return word && word.isWordLike ? word.index : end;
  }

  /** Mark the word that is heard now, and what is still to come. */
  mark(samples) {
    const node = this.element.firstChild;
    if (!paint || !node) return;
    const index = Math.min(this.at(samples), node.length - 1);
    const word = segmenter.segment(node.data).containing(index);
    if (word?.isWordLike || !this.#word) this.#word = word ?? null;
    if (!this.#word) return;
    const end = Math.min(node.length, this.#word.index + this.#word.segment.length);
    paint.now.clear();
    paint.coming.clear();
    paint.now.add(range(node, this.#word.index, end));
    paint.coming.add(range(node, end, node.length));
  }

  /** All of it was heard, or nothing more of it will be. */
  static clear() {
    paint?.now.clear();
    paint?.coming.clear();
  }

  // The text of an answer may have other spaces than its clauses.
  #locate(text) {
    let at = 0;
    for (const clause of this.#clauses) {
      if (clause.to === null) Object.assign(clause, find(text, clause.text, at));
      at = clause.to;
    }
  }
}

function find(text, clause, after) {
  const words = clause.trim().split(/\s+/);
  const pattern = words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("\\s+");
  const found = new RegExp(pattern, "u").exec(text.slice(after));
  if (found) {
    const from = after + found.index;
    return { from, to: from + found[0].length };
  }
  return { from: after, to: Math.min(text.length, after + clause.length) };
}

function range(node, begin, end) {
  const range = new Range();
  range.setStart(node, begin);
  range.setEnd(node, end);
  return range;
}
