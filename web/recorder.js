/** Recordings by the microphone, uncompressed. */
import captureSource from "./capture.worklet.js";

/** What to do about the errors of `getUserMedia`, by name. */
const REASONS = {
  NotAllowedError: "The microphone is not allowed. Allow it for this page in the browser's settings, and try again.",
  NotFoundError: "No microphone was found. Connect one, or choose audio files.",
  NotReadableError: "The microphone cannot be used. Another program may be using it.",
};

/** The raw signal: the model was trained without a browser's processing. */
const CONSTRAINTS = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };

/** One recording at a time. */
export class Recorder {
  #blocks = [];
  #context;
  #stream;

  /** Why this page cannot record, or null. */
  static get obstacle() {
    if (!globalThis.isSecureContext) {
      const places = "over HTTPS, from localhost or from the disk";
      return `Browsers allow the microphone only on pages ${places}. Choose audio files instead.`;
    }
    if (!navigator.mediaDevices?.getUserMedia || !globalThis.AudioWorkletNode) {
      return "This browser cannot record. Choose audio files instead.";
    }
    return null;
  }

  /** Seconds that were recorded so far. */
  get seconds() {
    return this.#context ? this.#blocks.reduce((sum, block) => sum + block.length, 0) / this.#context.sampleRate : 0;
  }

  /**
   * Asks for the microphone and starts.
   *
   * @param {(level: number) => void} onBlock Called for each block with its peak, 0 to 1.
   * @param {() => void} onEnd Called if the microphone is disconnected.
   */
  async start(onBlock, onEnd) {
    this.#blocks = [];
    try {
      this.#stream = await navigator.mediaDevices.getUserMedia({ audio: CONSTRAINTS });
    } catch (error) {
      throw new Error(REASONS[error.name] ?? `The microphone cannot be used (${error.name}).`);
    }
    this.#stream.getAudioTracks()[0].addEventListener("ended", onEnd);
    this.#context = new AudioContext();
    // From the disk, browsers refuse worklets of other kinds of addresses.
    await this.#context.audioWorklet.addModule(`data:text/javascript,${encodeURIComponent(captureSource)}`);
    const capture = new AudioWorkletNode(this.#context, "capture", { numberOfOutputs: 0 });
    capture.port.onmessage = ({ data }) => {
      this.#blocks.push(data);
      onBlock(data.reduce((peak, sample) => Math.max(peak, Math.abs(sample)), 0));
    };
    this.#context.createMediaStreamSource(this.#stream).connect(capture);
    await this.#context.resume();
  }

  /**
   * Stops, and releases the microphone.
   *
   * @returns {Promise<{samples: Float32Array, rate: number}>} The recording, at the microphone's rate in Hz.
   */
  async stop() {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    const rate = this.#context?.sampleRate ?? 0;
    await this.#context?.close();
    const samples = new Float32Array(this.#blocks.reduce((sum, block) => sum + block.length, 0));
    let place = 0;
    for (const block of this.#blocks) {
      samples.set(block, place);
      place += block.length;
    }
    this.#blocks = [];
    this.#context = this.#stream = undefined;
    return { samples, rate };
  }
}
