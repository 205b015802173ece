/** The model in its worker, and the files that it is loaded from. */
import workerSource from "worker-source";

/**
 * Loads a part of a package: a script that calls `gemoclapPart` with base64. Scripts also load from the disk, where
 * browsers refuse `fetch`.
 *
 * @param {string} file Path of the script, relative to the page.
 * @returns {Promise<string>} The base64.
 */
function loadPart(file) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    let text;
    globalThis.gemoclapPart = (given) => (text = given);
    script.src = file;
    script.onload = () => {
      script.remove();
      if (text === undefined) reject(new Error(`the file ${file} is damaged. Copy the folder of the page again.`));
      else resolve(text);
    };
    script.onerror = () => {
      script.remove();
      const advice = "Check the connection, and reload the page.";
      reject(new Error(`the file ${file} is missing or could not be loaded. ${advice}`));
    };
    document.head.append(script);
  });
}

/** An exported model that runs in a worker. */
export class Model {
  #calls = new Map();
  #failure;
  #next = 0;
  #worker;

  /** @param {object} manifest `description` of the model, and `packages` with the files and their sizes in bytes. */
  constructor(manifest) {
    this.manifest = manifest;
    this.description = manifest.description;
  }

  /** The sum of the sizes of all files, in bytes. */
  get bytes() {
    const sizes = Object.values(this.manifest.packages).flat().map(({ bytes }) => bytes);
    return sizes.reduce((sum, size) => sum + size, 0);
  }

  /**
   * Loads the files and starts the model.
   *
   * @param {(bytes: number) => void} onProgress Called with the bytes that were loaded so far.
   * @returns {Promise<boolean>} Whether the SHA-256 of the model was checked.
   */
  async load(onProgress) {
    if (typeof WebAssembly !== "object" || typeof DecompressionStream !== "function") {
      throw new Error("this browser is too old: it has no WebAssembly or no DecompressionStream. Update it.");
    }
    this.#start();
    let loaded = 0;
    for (const [name, parts] of Object.entries(this.manifest.packages)) {
      for (const { file, bytes } of parts) {
        await this.#call("part", { name, text: await loadPart(file) });
        onProgress((loaded += bytes));
      }
    }
    return this.#call("start", { description: this.description });
  }

  /**
   * Classifies a clip.
   *
   * @param {Float32Array} samples Mono, at the model's sampling rate. The array is handed over and empty afterwards.
   * @returns {Promise<{scores: number[], milliseconds: number}>} Scores in the order of the labels.
   */
  classify(samples) {
    return this.#call("classify", { samples }, [samples.buffer]);
  }

  #start() {
    const address = URL.createObjectURL(new Blob([workerSource], { type: "text/javascript" }));
    this.#worker = new Worker(address, { name: "GEmo-CLAP" });
    this.#worker.onmessage = ({ data: { id, result, error } }) => {
      const { resolve, reject } = this.#calls.get(id);
      this.#calls.delete(id);
      if (error === undefined) resolve(result);
      else reject(new Error(error));
    };
    this.#worker.onerror = (event) => {
      event.preventDefault();
      const reason = event.message ?? "no reason given";
      this.#failure = new Error(`the model stopped (${reason}). Reload the page.`);
      for (const { reject } of this.#calls.values()) reject(this.#failure);
      this.#calls.clear();
    };
  }

  #call(action, values, transferred = []) {
    if (this.#failure) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      const id = this.#next++;
      this.#calls.set(id, { resolve, reject });
      this.#worker.postMessage({ id, action, ...values }, transferred);
    });
  }
}
