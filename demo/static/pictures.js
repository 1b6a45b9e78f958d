// Pictures from files and from the camera, as JPEG.

import { openDevice } from "./audio.js";

const QUALITY = 0.85;

function draw(source, width, height, longest) {
  const scale = Math.min(1, longest / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  canvas.getContext("2d").drawImage(source, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/jpeg", QUALITY);
}

/** A picture file -> data URL of a JPEG of at most 1280 pixels a side, turned upright. */
export async function readPicture(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    throw new Error(`${file.name || "This"} is not a picture that the browser can read.`);
  }
  return draw(bitmap, bitmap.width, bitmap.height, 1280);
}

/** The base64 within a data URL. */
export const bare = (url) => url.slice(url.indexOf(",") + 1);

export class Camera {
  constructor(video) {
    this.video = video;
  }

  get on() {
    return Boolean(this.stream);
  }

  async start() {
    this.stream = await openDevice("camera", {
      video: { width: { ideal: 640 }, facingMode: { ideal: "environment" } },
    });
    this.video.srcObject = this.stream;
    await this.video.play();
  }

  stop() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.video.srcObject = this.stream = null;
  }

  /** What it sees now, a data URL of at most 640 pixels a side; null before the first picture. */
  frame() {
    const { videoWidth, videoHeight } = this.video;
    return this.on && videoWidth ? draw(this.video, videoWidth, videoHeight, 640) : null;
  }
}
