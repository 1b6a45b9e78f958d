// Pictures, video clips and sound from files.

import { t } from "./i18n.js";
import { RATE, encodePcm, toPcm16 } from "./omni-client.js";

const QUALITY = 0.85;
const LONGEST = 1280; // pixels of a side of a picture
const FRAME = 640; // of one of many
const CLIP = 30; // s that a video clip may last
const FRAMES = 6; // of a clip
const SOUND = 60; // s that a sound file may last
const PATIENCE = 10_000; // ms for the browser to show a place of a video

/** What `source` shows -> data URL of a JPEG of at most `longest` pixels a side. */
export function draw(source, width, height, longest) {
  const scale = Math.min(1, longest / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  canvas.getContext("2d").drawImage(source, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/jpeg", QUALITY);
}

export const picturePart = (url) => ({ type: "input_image", image_url: url });

const soundPart = (pcm) => ({ type: "input_audio", audio: encodePcm(pcm) });

/** Whether `readFile` knows what to do with a file. */
export const isMedia = ({ type }) => /^(image|audio|video)\//.test(type);

/**
 * A file that the user shows, to go with a question: its name, `pictures` (data URLs), `sound` (an
 * address to play it at, or null) and the content parts of a message.
 */
class Attachment {
  constructor(name, pictures, parts, sound = null) {
    Object.assign(this, { name, pictures, parts, sound });
  }
}

/** A file -> Attachment. Throws an `Error` with words for the user. */
export function readFile(file) {
  const name = file.name || t("thisFile");
  if (file.type.startsWith("image/")) return readPicture(file, name);
  return file.type.startsWith("audio/") ? readSound(file, name) : readVideo(file, name);
}

async function readPicture(file, name) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    throw new Error(t("notAPicture", { name }));
  }
  const url = draw(bitmap, bitmap.width, bitmap.height, LONGEST);
  bitmap.close();
  return new Attachment(name, [url], [picturePart(url)]);
}

async function readSound(file, name) {
  let pcm;
  try {
    pcm = await decodeSound(file);
  } catch {
    throw new Error(t("notASound", { name }));
  }
  if (pcm.length > SOUND * RATE) throw new Error(t("tooLong", { name, n: SOUND }));
  return new Attachment(name, [], [soundPart(pcm)], URL.createObjectURL(file));
}

/** -> mono Int16Array at 24 kHz */
async function decodeSound(file) {
  const context = new OfflineAudioContext(1, 1, RATE);
  const sound = await context.decodeAudioData(await file.arrayBuffer());
  const mono = new Float32Array(sound.length);
  for (let channel = 0; channel < sound.numberOfChannels; channel++) {
    const samples = sound.getChannelData(channel);
    for (let i = 0; i < mono.length; i++) mono[i] += samples[i] / sound.numberOfChannels;
  }
  return toPcm16(mono);
}

async function readVideo(file, name) {
  const url = URL.createObjectURL(file);
  try {
    const { pictures, seconds } = await look(url, name);
    if (seconds > CLIP + 0.5) throw new Error(t("tooLong", { name, n: CLIP }));
    const pcm = await decodeSound(file).catch(() => null); // it may be silent
    const parts = pictures.map(picturePart);
    if (pcm?.length) parts.push(soundPart(pcm));
    return new Attachment(name, pictures, parts);
  } finally {
    URL.revokeObjectURL(url);
  }
}

/** Pictures of a video at even distances. */
async function look(url, name) {
  const video = document.createElement("video");
  video.muted = video.playsInline = true;
  video.preload = "auto";
  const happens = (event) =>
    new Promise((resolve, reject) => {
      const fail = () => reject(new Error(t("notAVideo", { name })));
      const late = setTimeout(fail, PATIENCE);
      const settle = (end) => () => (clearTimeout(late), end());
      video.addEventListener(event, settle(resolve), { once: true });
      video.addEventListener("error", settle(fail), { once: true });
    });
  const go = (seconds) => {
    const there = happens("seeked");
    video.currentTime = seconds;
    return there;
  };
  const loaded = happens("loadeddata");
  video.src = url;
  await loaded;
  if (video.duration === Infinity) await go(1e9); // recorded live: its end has to be looked for
  const seconds = video.duration;
  const pictures = [];
  const count = seconds > CLIP + 0.5 ? 0 : Math.min(FRAMES, Math.max(1, Math.round(seconds / 2)));
  for (let i = 0; i < count; i++) {
    await go(((i + 0.5) * seconds) / count);
    if (!video.videoWidth) throw new Error(t("notAVideo", { name }));
    pictures.push(draw(video, video.videoWidth, video.videoHeight, FRAME));
  }
  video.removeAttribute("src");
  video.load();
  return { pictures, seconds };
}
