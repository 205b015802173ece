/** Hands samples of the microphone to the page: the mean of the channels, in blocks of 2048. */
class Capture extends AudioWorkletProcessor {
  #block = new Float32Array(2048);
  #filled = 0;

  process([channels]) {
    const length = channels[0]?.length ?? 0;
    for (let place = 0; place < length; place++) {
      let sum = 0;
      for (const channel of channels) sum += channel[place];
      this.#block[this.#filled++] = sum / channels.length;
      if (this.#filled === this.#block.length) {
        this.port.postMessage(this.#block.slice());
        this.#filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("capture", Capture);
