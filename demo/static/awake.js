// A phone's screen stays on during a call; a screen that goes dark takes the microphone with it.

export class Awake {
  #wanted = false;
  #lock = null;

  constructor() {
    // Browsers let go of it whenever the page is hidden.
    document.addEventListener("visibilitychange", () => this.#follow());
  }

  /** Whether the screen is to stay on. */
  set wanted(wanted) {
    if (wanted === this.#wanted) return;
    this.#wanted = wanted;
    this.#follow();
  }

  async #follow() {
    if (!this.#wanted) {
      this.#lock?.release().catch(() => {});
      this.#lock = null;
    } else if (document.visibilityState === "visible" && (!this.#lock || this.#lock.released)) {
      // Some browsers have none, and a low battery refuses it: the call goes on all the same.
      const lock = await navigator.wakeLock?.request("screen").catch(() => null);
      if (this.#wanted) this.#lock = lock;
      else lock?.release().catch(() => {});
    }
  }
}
