/** The results on the page: a card for each clip, a table of several, and CSV. Names of files are set as text only. */

/**
 * Makes an element.
 *
 * @param {string} tag Its tag.
 * @param {object} properties Properties of the element, such as `className`.
 * @param {...(Node|string)} children Its content; strings become text.
 * @returns {HTMLElement} The element.
 */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** A share as per cent with one decimal. */
export function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

/** The place of the highest score. */
function best(scores) {
  return scores.indexOf(Math.max(...scores));
}

/** A clip and its card. */
export class Clip {
  static #count = 0;

  /**
   * @param {File} file The audio file.
   * @param {string[]} labels The labels of the model.
   * @param {(clip: Clip) => void} onRemove Called when its card is closed.
   */
  constructor(file, labels, onRemove) {
    this.file = file;
    this.labels = labels;
    this.id = `clip-${++Clip.#count}`;
    this.address = URL.createObjectURL(file);
    this.body = element("div", { className: "answer" }, element("p", { className: "quiet" }, "Waiting"));
    const heading = element("h3", { id: `${this.id}-name` }, file.name);
    const ariaLabel = `Remove ${file.name}`;
    const close = element("button", { type: "button", className: "plain", ariaLabel }, "Remove");
    close.addEventListener("click", () => onRemove(this));
    const player = element("audio", { controls: true, preload: "metadata", src: this.address });
    player.setAttribute("aria-label", `Player of ${file.name}`);
    const header = element("header", {}, heading, close);
    this.card = element("article", { id: this.id, tabIndex: -1 }, header, player, this.body);
    this.card.setAttribute("aria-labelledby", heading.id);
  }

  /** Removes the card and frees the file. */
  remove() {
    this.removed = true;
    this.card.remove();
    URL.revokeObjectURL(this.address);
  }

  /** Shows what is being done. */
  showProgress(text) {
    this.body.replaceChildren(element("p", { className: "quiet" }, text));
  }

  /** Shows why there is no answer. */
  showError(message) {
    this.error = message;
    this.card.classList.add("failed");
    this.body.replaceChildren(element("p", { className: "message" }, `Not analysed: ${message}.`));
  }

  /**
   * Shows an answer.
   *
   * @param {{scores: number[], milliseconds: number, seconds: number, cutAt: ?number}} answer Scores in the order of
   *     the labels, time of the computation, length of the clip in seconds, and the length that was used if it
   *     was cut.
   */
  showAnswer(answer) {
    this.answer = answer;
    this.label = this.labels[best(answer.scores)];
    this.score = Math.max(...answer.scores);
    const computed = `${(answer.milliseconds / 1000).toFixed(2)} s`;
    const facts = `${answer.seconds.toFixed(1)} s of audio, computed in ${computed}`;
    const cut = answer.cutAt
      ? [element("p", { className: "note" }, `Only the first ${answer.cutAt} s were used: the clip is longer.`)]
      : [];
    this.body.replaceChildren(
      element("p", { className: "label" }, element("strong", {}, this.label), ` ${percent(this.score)}`),
      bars(this.labels, answer.scores),
      ...cut,
      element("p", { className: "quiet" }, facts),
    );
  }

  /** The result in one sentence, for screen readers. */
  get sentence() {
    if (this.error) return `${this.file.name}: not analysed, ${this.error}.`;
    return `${this.file.name}: ${this.label}, ${percent(this.score)}.`;
  }
}

/** Scores as a list, best first: label, bar and number. The bar is hidden from screen readers. */
function bars(labels, scores) {
  const order = labels.map((_, index) => index).sort((one, other) => scores[other] - scores[one]);
  const rows = order.map((index, place) => {
    const bar = element("span", { className: "bar" });
    bar.style.width = `${100 * scores[index]}%`;
    const track = element("span", { className: "track", ariaHidden: "true" }, bar);
    const number = element("span", { className: "number" }, percent(scores[index]));
    return element("li", { className: place ? "" : "best" }, element("span", {}, labels[index]), track, number);
  });
  const list = element("ol", { className: "bars" }, ...rows);
  list.setAttribute("aria-label", "Scores, best first");
  return list;
}

/**
 * Rows of the table of clips.
 *
 * @param {Clip[]} clips The clips in their order on the page.
 * @returns {HTMLElement[]} One row each, with a link to the card.
 */
export function tableRows(clips) {
  return clips.map((clip) => {
    const link = element("a", { href: `#${clip.id}` }, clip.file.name);
    const waiting = clip.error ? "not analysed" : "…";
    const { seconds, milliseconds } = clip.answer ?? {};
    const cells = clip.answer
      ? [clip.label, percent(clip.score), `${seconds.toFixed(1)} s`, `${(milliseconds / 1000).toFixed(2)} s`]
      : [waiting, "", "", ""];
    return element("tr", {}, element("th", { scope: "row" }, link), ...cells.map((cell) => element("td", {}, cell)));
  });
}

/** A cell of CSV. A cell that a spreadsheet would read as a formula begins with an apostrophe. */
function cell(value) {
  let text = String(value);
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/**
 * The results as CSV, with the columns of `gemoclap predict` and the seconds of audio and computation.
 *
 * @param {Clip[]} clips The clips.
 * @param {string[]} labels The labels of the model.
 * @returns {string} A header, and a line for each clip.
 */
export function csv(clips, labels) {
  const columns = labels.map((label) => `score_${label}`);
  const head = ["file", "label", "score", ...columns, "error", "seconds", "computation"];
  const rows = clips.map(({ file, label, score, answer, error }) => {
    if (!answer) return [file.name, ...Array(2 + labels.length).fill(""), error ?? "not finished", "", ""];
    return [file.name, label, score, ...answer.scores, "", answer.seconds, answer.milliseconds / 1000];
  });
  return [head, ...rows].map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}
