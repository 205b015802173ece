/** From files and recordings to the samples of the model, with the rules and messages of the Python package. */

export const MAX_SECONDS = 60; // of a clip; the rest is left out
export const MAX_MINUTES = 10; // of a file: browsers decode the whole of it into memory
export const MAX_MEGABYTES = 100; // of a file
const PROBED_BYTES = 1e6; // a smaller file is decoded without a look at its header, which takes time

/** Length of a media file in seconds by its header; NaN if it is not known. */
function headerSeconds(file) {
  return new Promise((resolve) => {
    const media = new Audio();
    const address = URL.createObjectURL(file);
    const finish = (seconds) => {
      clearTimeout(timer);
      media.removeAttribute("src");
      URL.revokeObjectURL(address);
      resolve(seconds);
    };
    const timer = setTimeout(() => finish(NaN), 3000);
    media.preload = "metadata";
    media.onloadedmetadata = () => finish(media.duration);
    media.onerror = () => finish(NaN);
    media.src = address;
  });
}

/**
 * The mean of the channels, or the loudest channel if they cancel out: if the mean has less than half of the power
 * that it would have with independent channels.
 *
 * @param {AudioBuffer} buffer The channels.
 * @returns {Float32Array} One channel.
 */
export function mixChannels(buffer) {
  const channels = Array.from({ length: buffer.numberOfChannels }, (_, index) => buffer.getChannelData(index));
  if (channels.length === 1) return channels[0];
  const mean = new Float32Array(buffer.length);
  for (const channel of channels) channel.forEach((sample, place) => (mean[place] += sample / channels.length));
  const powers = channels.map(power);
  const average = powers.reduce((sum, value) => sum + value, 0) / powers.length;
  const cancelled = average > 1e-10 && power(mean) < average / (2 * powers.length);
  return cancelled ? channels[powers.indexOf(Math.max(...powers))] : mean;
}

/** The variance of samples. */
function power(samples) {
  let sum = 0;
  let squares = 0;
  for (const sample of samples) {
    sum += sample;
    squares += sample * sample;
  }
  return squares / samples.length - (sum / samples.length) ** 2;
}

/**
 * Decodes a file at the model's sampling rate.
 *
 * @param {File} file An audio file, or a video with sound.
 * @param {number} rate Sampling rate in Hz.
 * @returns {Promise<Float32Array>} Mono samples.
 */
export async function decode(file, rate) {
  if (file.size > MAX_MEGABYTES * 1e6) {
    throw new Error(`larger than ${MAX_MEGABYTES} MB; cut it, or use the command gemoclap`);
  }
  if (file.size > PROBED_BYTES) refuseLong(await headerSeconds(file));
  let data;
  try {
    data = await file.arrayBuffer();
  } catch {
    throw new Error("cannot be read; it was moved, changed or is a folder");
  }
  let buffer;
  try {
    buffer = await new OfflineAudioContext(1, 1, rate).decodeAudioData(data);
  } catch (error) {
    if (error instanceof RangeError) throw new Error("the memory is not sufficient for it; cut it into parts");
    throw new Error("not audio that this browser can decode, or damaged; convert it to WAV, FLAC or MP3");
  }
  refuseLong(buffer.duration);
  return mixChannels(buffer);
}

/** Refuses a file that is too long; an unknown length is accepted. */
function refuseLong(seconds) {
  if (Number.isFinite(seconds) && seconds > MAX_MINUTES * 60) {
    throw new Error(`longer than ${MAX_MINUTES} minutes; cut it, or use the command gemoclap timeline`);
  }
}

/**
 * Resamples a recording.
 *
 * @param {Float32Array} samples Mono samples.
 * @param {number} from Their sampling rate in Hz.
 * @param {number} to The new rate in Hz.
 * @returns {Promise<Float32Array>} Mono samples.
 */
export async function resample(samples, from, to) {
  if (from === to || !samples.length) return samples;
  const context = new OfflineAudioContext(1, Math.ceil((samples.length * to) / from), to);
  const buffer = new AudioBuffer({ length: samples.length, sampleRate: from });
  buffer.copyToChannel(samples, 0);
  const source = new AudioBufferSourceNode(context, { buffer });
  source.connect(context.destination);
  source.start();
  return (await context.startRendering()).getChannelData(0);
}

/**
 * Refuses a clip that the package refuses too.
 *
 * @param {Float32Array} samples Mono samples at the model's sampling rate.
 * @param {object} description Of the model: `sampling_rate`, `min_seconds`, `silence_peak`.
 */
export function check(samples, description) {
  const { sampling_rate: rate, min_seconds: minimum, silence_peak: floor } = description;
  if (samples.length < Math.max(1, minimum * rate)) {
    const seconds = (samples.length / rate).toFixed(3);
    throw new Error(`too short, ${seconds} s; the minimum is ${minimum} s`);
  }
  let sum = 0;
  for (const sample of samples) sum += sample;
  if (!Number.isFinite(sum)) throw new Error("it contains NaN or infinite samples; repair or remove it");
  const mean = sum / samples.length;
  let peak = 0;
  for (const sample of samples) peak = Math.max(peak, Math.abs(sample - mean));
  if (peak < floor) {
    const decibels = Math.round(20 * Math.log10(floor));
    throw new Error(`silent, no sample above ${decibels} dBFS; remove it or check the recording`);
  }
}

/**
 * A WAV file of samples, 16 bits, so that a recording can be played and saved.
 *
 * @param {Float32Array} samples Mono samples.
 * @param {number} rate Sampling rate in Hz.
 * @param {string} name Name of the file.
 * @returns {File} The file.
 */
export function wavFile(samples, rate, name) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (place, word) => {
    for (let index = 0; index < word.length; index++) view.setUint8(place + index, word.charCodeAt(index));
  };
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); // length of the format
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true); // bytes per second
  view.setUint16(32, 2, true); // bytes per sample
  view.setUint16(34, 16, true); // bits per sample
  text(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((sample, index) => {
    view.setInt16(44 + 2 * index, Math.max(-32768, Math.min(32767, Math.round(sample * 32768))), true);
  });
  return new File([view], name, { type: "audio/wav" });
}
