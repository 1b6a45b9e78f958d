// What is typed and attached.

import { iconButton, make } from "./entries.js";
import { t } from "./i18n.js";
import { isMedia, picturePart, readFile } from "./pictures.js";

const TALLEST = 160; // pixels that the text may take before it scrolls
const LARGEST = 12e6; // characters of all attachments: the server takes messages of 16 MiB

/**
 * `before()` is called when a question is about to leave, `asked()` when it has left; `frame()`
 * gives what the camera shows, `say(text)` tells what is wrong.
 */
export class Composer {
  #attached = [];
  #reading = 0; // files
  #$;
  #root;
  #options;

  constructor(root, options) {
    this.#root = root;
    this.#options = options;
    this.#$ = (name) => root.querySelector(`#omni-${name}`);
    this.#wireText();
    this.#wireFiles();
  }

  /** Whether there is something to send. */
  get filled() {
    return !this.#reading && Boolean(this.#$("text").value.trim() || this.#attached.length);
  }

  /** Send what is attached, for a question that is being spoken. */
  hand() {
    const attached = this.#take();
    if (attached.length) this.#tell(attached.flatMap(({ parts }) => parts), attached);
  }

  async send() {
    const { client, frame, before, asked } = this.#options;
    if (!client.open || !this.filled) return;
    await before();
    const text = this.#$("text").value.trim();
    const attached = this.#take();
    if (!text && !attached.length) return; // sent twice at once
    const seen = frame();
    const content = attached.flatMap(({ parts }) => parts);
    if (seen) content.push(picturePart(seen));
    if (text) content.push({ type: "input_text", text });
    const entry = this.#tell(content, attached);
    if (seen) entry.picture(seen);
    if (text) entry.text = text;
    asked();
    client.createResponse();
    this.#$("text").value = "";
    this.#grow();
  }

  /** A message of the user, in the conversation and on the page. */
  #tell(content, attached) {
    const { client, transcript } = this.#options;
    const entry = transcript.entry("user", client.sendMessage(content));
    entry.written = true;
    for (const { name, pictures, sound } of attached) {
      for (const url of pictures) entry.picture(url);
      if (sound) entry.sound({ name, url: sound });
    }
    return entry;
  }

  #take() {
    const attached = this.#attached;
    this.#attached = [];
    this.#draw();
    return attached;
  }

  // Text

  #wireText() {
    const box = this.#$("text");
    box.oninput = () => this.#grow();
    box.onkeydown = (event) => {
      // Enter also ends the choice of a word in input methods; Safari says so by its old code.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
      event.preventDefault();
      this.send();
    };
    this.#$("form").onsubmit = (event) => {
      event.preventDefault();
      this.send();
    };
  }

  #grow() {
    const box = this.#$("text");
    box.style.height = "auto";
    box.style.height = `${Math.min(box.scrollHeight, TALLEST)}px`;
    this.#options.onChange();
  }

  // Files

  #wireFiles() {
    this.#$("attach").onclick = () => this.#$("file").click();
    this.#$("file").onchange = async ({ target }) => {
      const files = [...target.files];
      target.value = "";
      await this.add(files);
    };
    document.addEventListener("paste", (event) => {
      const files = [...event.clipboardData.files].filter(isMedia);
      if (!files.length) return;
      event.preventDefault();
      this.add(files);
    });
    const drops = (event) => event.dataTransfer?.types.includes("Files");
    document.addEventListener("dragover", (event) => {
      if (!drops(event)) return;
      event.preventDefault();
      this.#root.classList.add("omni-drop");
    });
    document.addEventListener("dragleave", ({ relatedTarget }) => {
      if (!relatedTarget) this.#root.classList.remove("omni-drop");
    });
    document.addEventListener("drop", (event) => {
      this.#root.classList.remove("omni-drop");
      if (!drops(event)) return;
      event.preventDefault();
      this.add([...event.dataTransfer.files]);
    });
  }

  /** Attach files; those that cannot be used are named. */
  async add(files) {
    const { say, onChange } = this.#options;
    say("");
    this.#reading += files.length;
    onChange();
    const problems = [];
    for (const file of files) {
      try {
        if (!isMedia(file)) throw new Error(t("onlyMedia"));
        const attachment = await readFile(file);
        if (size([...this.#attached, attachment]) > LARGEST) {
          throw new Error(t("tooMuch", { name: attachment.name }));
        }
        this.#attached.push(attachment);
      } catch (error) {
        if (!problems.includes(error.message)) problems.push(error.message);
      }
      this.#reading--;
      this.#draw();
    }
    if (problems.length) say(problems.join(" "));
    this.#$("text").focus();
  }

  #draw() {
    const list = this.#$("attached");
    list.replaceChildren(...this.#attached.map((one) => this.#row(one)));
    list.hidden = !this.#attached.length;
    this.#options.onChange();
  }

  #row(attachment) {
    const { name, pictures } = attachment;
    const row = make("li");
    if (pictures.length) {
      const image = make("img");
      image.src = pictures[0];
      image.alt = name;
      row.append(image);
    } else {
      const label = make("span");
      label.textContent = name;
      row.append(label);
    }
    const remove = iconButton("end", "removePicture", () => {
      this.#attached = this.#attached.filter((one) => one !== attachment);
      this.#draw();
      this.#$("text").focus();
    });
    remove.removeAttribute("data-t-label");
    remove.removeAttribute("data-t-title");
    remove.setAttribute("aria-label", t("removeAttachment", { name }));
    remove.title = t("removeAttachment", { name });
    row.append(remove);
    return row;
  }
}

/** Attachments -> characters that their parts take in a message. */
function size(attachments) {
  return JSON.stringify(attachments.flatMap(({ parts }) => parts)).length;
}
