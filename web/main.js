/** The page: loading, recording, files, and the order in which clips are analysed. */
import { check, decode, MAX_SECONDS, resample, wavFile } from "./audio.js";
import { Model } from "./model.js";
import { Recorder } from "./recorder.js";
import { Clip, csv, element, tableRows } from "./results.js";

const MAX_RECORDED = 30; // seconds
const MAX_FILES = 200; // at a time
const part = (id) => document.getElementById(id);

const model = new Model(JSON.parse(part("manifest").textContent));
const { description } = model;
const recorder = new Recorder();
let clips = [];
let ready;
let queue = Promise.resolve();
let recordings = 0;

/** Says something to screen readers. */
function announce(text) {
  part("announcement").textContent = text;
}

/** Shows a message beside the controls; an empty one removes it. */
function showMessage(text) {
  part("message").textContent = text;
  part("message").hidden = !text;
}

/** Loads the model, and shows how far it is. */
async function load() {
  const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
  const total = model.bytes;
  const show = (bytes) => {
    part("progress").value = bytes / total;
    part("state").textContent =
      bytes < total ? `Loading the model: ${megabytes(bytes)} of ${megabytes(total)} MB` : "Starting the model";
  };
  show(0);
  try {
    const checked = await model.load(show);
    part("state").textContent = "Ready. You can go offline now.";
    part("checksum").textContent = checked
      ? "checked (SHA-256)"
      : "not checked: browsers offer SHA-256 over HTTPS only";
    document.body.dataset.state = "ready";
  } catch (error) {
    part("state").textContent = `The model cannot be used: ${error.message}`;
    document.body.dataset.state = "failed";
    for (const control of document.querySelectorAll("#controls :is(button, input)")) control.disabled = true;
    throw error;
  } finally {
    part("progress").hidden = true;
  }
}

/** Shows the table if there are several clips, and the buttons if there are any. */
function showOverview() {
  part("results").hidden = !clips.length;
  part("overview").hidden = clips.length < 2;
  part("rows").replaceChildren(...tableRows(clips));
}

/** Analyses one clip and shows the result. */
async function analyse(clip) {
  if (clip.removed) return;
  try {
    await ready.catch(() => Promise.reject(new Error("the model is not loaded")));
    clip.showProgress("Decoding");
    const rate = description.sampling_rate;
    let samples = await decode(clip.file, rate);
    const seconds = samples.length / rate;
    const cutAt = seconds > MAX_SECONDS ? MAX_SECONDS : null;
    samples = samples.slice(0, MAX_SECONDS * rate);
    check(samples, description);
    clip.showProgress("Analysing");
    clip.showAnswer({ ...(await model.classify(samples)), seconds, cutAt });
  } catch (error) {
    clip.showError(error.message.replace(/\.$/, ""));
  }
  if (clip.removed) return;
  announce(clip.sentence);
  showOverview();
}

/** Adds clips above the others, in their order, and analyses them one after the other. */
function add(files) {
  const added = [...files].slice(0, MAX_FILES).map((file) => new Clip(file, description.labels, remove));
  showMessage(files.length > MAX_FILES ? `Only the first ${MAX_FILES} files were taken.` : "");
  clips = [...added, ...clips];
  part("cards").prepend(...added.map(({ card }) => card));
  showOverview();
  for (const clip of added) queue = queue.then(() => analyse(clip));
}

/** Removes a clip. */
function remove(clip) {
  clips = clips.filter((each) => each !== clip);
  clip.remove();
  showOverview();
  announce(`${clip.file.name} was removed.`);
  (clips.length ? part("results-heading") : part("record")).focus();
}

/** Starts or stops a recording. */
async function toggleRecording() {
  const button = part("record");
  button.disabled = true;
  try {
    if (button.dataset.on) await finishRecording();
    else await startRecording();
  } catch (error) {
    showMessage(error.message);
    await recorder.stop();
    showRecording(false);
  } finally {
    button.disabled = false;
  }
}

async function startRecording() {
  if (Recorder.obstacle) throw new Error(Recorder.obstacle);
  showMessage("");
  const stop = () => part("record").dataset.on && !part("record").disabled && toggleRecording();
  await recorder.start((level) => {
    part("level").style.width = `${100 * Math.max(0, 1 + Math.log10(Math.max(level, 1e-3)) / 3)}%`;
    part("clock").textContent = `${recorder.seconds.toFixed(1)} of ${MAX_RECORDED} s`;
    if (recorder.seconds >= MAX_RECORDED) stop();
  }, stop);
  showRecording(true);
  announce("Recording.");
}

async function finishRecording() {
  const { samples, rate } = await recorder.stop();
  showRecording(false);
  const wave = await resample(samples, rate, description.sampling_rate);
  add([wavFile(wave, description.sampling_rate, `recording-${++recordings}.wav`)]);
}

/** Shows whether the microphone is on. */
function showRecording(on) {
  const button = part("record");
  if (on) button.dataset.on = "true";
  else delete button.dataset.on;
  button.lastChild.textContent = on ? "Stop" : "Record";
  part("meter").hidden = !on;
  part("level").style.width = "0";
}

/** Saves the results as a file. */
function download() {
  const address = URL.createObjectURL(new Blob(["\ufeff", csv(clips, description.labels)], { type: "text/csv" }));
  element("a", { href: address, download: "emotions.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

/** Writes what the description says about the model. */
function describe() {
  part("model-name").textContent = description.model;
  part("labels").textContent = description.labels.join(", ");
  part("calibrated").textContent = description.calibrated
    ? "The scores are calibrated on recordings like those of the training, but not for other recordings."
    : "The scores are not calibrated: read them as an order, not as probabilities.";
  part("licence").textContent = description.licence ?? "see the model card";
}

/** Connects the controls. */
function connect() {
  part("record").addEventListener("click", toggleRecording);
  part("files").addEventListener("change", ({ target }) => {
    if (target.files.length) add(target.files);
    target.value = "";
  });
  part("download").addEventListener("click", download);
  part("clear").addEventListener("click", () => {
    for (const clip of clips) clip.remove();
    clips = [];
    showOverview();
    announce("The results were removed.");
    part("record").focus();
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      document.body.classList.toggle("dropping", kind === "dragover");
      if (kind === "drop" && event.dataTransfer.files.length && !part("files").disabled) add(event.dataTransfer.files);
    });
  }
}

describe();
connect();
if (Recorder.obstacle) showMessage(Recorder.obstacle);
ready = load();
ready.catch(() => {}); // shown by `load`
