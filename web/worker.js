/**
 * The worker: unpacks WebAssembly and model, and runs the model. It gets texts and samples by messages and makes no
 * requests: the Content-Security-Policy of the page forbids them.
 */
import * as ort from "onnxruntime-web/wasm";

const packages = { runtime: unpacker(), model: unpacker() };
let session;

/** Collects a gzip file that arrives as base64 in parts. */
function unpacker() {
  const stream = new DecompressionStream("gzip");
  const writer = stream.writable.getWriter();
  const bytes = new Response(stream.readable).arrayBuffer();
  bytes.catch(() => {}); // reported where it is awaited
  return { writer, bytes };
}

/** The bytes of base64. */
function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let place = 0; place < bytes.length; place++) bytes[place] = binary.charCodeAt(place);
  return bytes;
}

/** A reason in words, for what browsers and onnxruntime-web throw if the memory is full. */
function inWords(error) {
  const text = String(error?.message ?? error);
  if (error instanceof RangeError || /bad_alloc|OOM|out of memory|memory access|allocat/i.test(text)) {
    return "the memory of this device or browser is not sufficient. Close other pages, or use shorter recordings.";
  }
  return text;
}

/** The unpacked bytes of a package. */
async function finished(name) {
  try {
    await packages[name].writer.close();
    return await packages[name].bytes;
  } catch (error) {
    if (error instanceof RangeError) throw error;
    throw new Error(`the files of the ${name} are damaged. Build the page again, or copy its folder again.`);
  }
}

/** The SHA-256 of bytes in hexadecimal, or null where the browser offers none (plain HTTP). */
async function sha256(bytes) {
  if (!self.crypto?.subtle) return null;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const actions = {
  /** Takes a part of a package. */
  async part({ name, text }) {
    // A damaged part makes the stream fail; `finished` reports it.
    await packages[name].writer.write(fromBase64(text)).catch(() => {});
  },

  /** Starts the session, when all parts have come. Returns whether the model's SHA-256 was checked. */
  async start({ description }) {
    const [runtime, model] = [await finished("runtime"), await finished("model")];
    const found = await sha256(model);
    if (found && found !== description.sha256) {
      throw new Error("the model differs from its description (SHA-256). Export it again, and build the page again.");
    }
    Object.assign(ort.env.wasm, { numThreads: 1, proxy: false, wasmBinary: runtime });
    ort.env.logLevel = "error";
    session = await ort.InferenceSession.create(new Uint8Array(model), { executionProviders: ["wasm"] });
    const missing = ["waveform", "lengths"].filter((name) => !session.inputNames.includes(name));
    if (missing.length || !session.outputNames.includes("scores")) {
      throw new Error("the model is not a file of `gemoclap export`: its inputs or outputs have other names.");
    }
    return found !== null;
  },

  /** Returns the scores of a clip, and the time of the computation in milliseconds. */
  async classify({ samples }) {
    const start = performance.now();
    const waveform = new ort.Tensor("float32", samples, [1, samples.length]);
    const lengths = new ort.Tensor("int64", BigInt64Array.of(BigInt(samples.length)), [1]);
    const { scores } = await session.run({ waveform, lengths }, ["scores"]);
    const values = Array.from(scores.data);
    if (!values.every(Number.isFinite)) throw new Error("the model gave scores that are not numbers.");
    return { scores: values, milliseconds: performance.now() - start };
  },
};

let queue = Promise.resolve(); // messages are handled one after the other

self.onmessage = ({ data: { id, action, ...values } }) => {
  queue = queue.then(async () => {
    try {
      self.postMessage({ id, result: await actions[action](values) });
    } catch (error) {
      self.postMessage({ id, error: inWords(error) });
    }
  });
};
