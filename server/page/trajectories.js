// Shows the trajectories of a run as cards. Events are recorded as they arrive, and cards are painted once per frame.

import { draw, palette } from "./boards.js";

const MOST_CARDS = 256;
const MOST_MOVING = 64; // with at most this many cards, they glide to their place in the ranking; with more they jump
const PAINT_MS = 8; // time per frame for painting cards; the rest are painted in the next frame
const LINE_HEIGHT = 28; // height of the score line's drawing, as in index.html

const ANSWERED = ["valid", "wrong", "answered"]; // the last one if the task has no checker
const OTHER_LABELS = { spare: "not needed" }; // the label of every other state is its name
const $ = (id) => document.getElementById(id);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const dark = matchMedia("(prefers-color-scheme: dark)");

class Card {
  constructor(index) {
    this.index = index;
    this.state = "running";
    this.steps = 0;
    this.line = []; // [steps, score] after each step
    this.element = $("card").content.firstElementChild.cloneNode(true);
    const part = (selector) => this.element.querySelector(selector);
    this.parts = {
      badge: part(".badge"),
      name: part(".name"),
      canvas: part("canvas"),
      line: part("polyline"),
      area: part("polygon"),
      depth: part(".depth"),
      score: part(".score"),
    };
  }

  /** Records what the trajectory shows after a step, or at its end. */
  see({ grid, text, steps, score }) {
    Object.assign(this, { before: this.grid, grid, text, steps, score });
    this.line.push([steps, score]);
  }

  /** The rank: valid (or unchecked) cards by score, then wrong ones by score, then running ones, then those without an answer. */
  get rank() {
    const group = { valid: 0, answered: 0, wrong: 1, running: 2 }[this.state] ?? 3;
    return [group, group < 2 ? -this.score : 0, this.index];
  }

  paint(run, size, colors) {
    const { badge, name, canvas, line, area, depth, score } = this.parts;
    const running = this.state === "running";
    const waiting = running && !this.steps && run.count <= MOST_CARDS; // with more cards than that, not every step is shown
    this.element.dataset.state = this.state;
    this.element.dataset.trajectory = this.index;
    badge.textContent = waiting ? "waiting" : (OTHER_LABELS[this.state] ?? this.state);
    name.textContent = this.same === undefined ? `#${this.index}` : `#${this.index} = #${this.same}`;
    draw(canvas, size, colors, run.task, run.puzzle, this.grid, running ? this.before : undefined, run.boxRows);
    canvas.ariaLabel = running ? `Board of trajectory ${this.index}, running` : this.text;
    const points = this.points(run.depth);
    line.setAttribute("points", points.join(" "));
    area.setAttribute("points", points.length ? [...points, [points.at(-1)[0], LINE_HEIGHT], [0, LINE_HEIGHT]].join(" ") : "");
    depth.textContent = this.progress(run.depth);
    score.textContent = this.score?.toFixed(2) ?? "";
  }

  /** The points of the score line: one for each step, the first score drawn from the left edge on. */
  points(depth) {
    const points = this.line.map(([step, score]) => [(100 * step) / depth, 1 + (1 - score) * (LINE_HEIGHT - 2)]);
    return points.length ? [[0, points[0][1]], ...points] : [];
  }

  progress(depth) {
    if (!ANSWERED.includes(this.state)) return this.steps ? `step ${this.steps}` : "";
    return this.steps < depth ? `halted at ${this.steps}` : `all ${this.steps} steps`;
  }
}

/** Whether card a ranks before card b. */
const before = (a, b) => {
  const [x, y] = [a.rank, b.rank];
  const at = x.findIndex((value, i) => value !== y[i]);
  return at >= 0 && x[at] < y[at];
};

/** The trajectories of one run, as the page shows them. */
export class Trajectories {
  constructor(task, count, depth) {
    Object.assign(this, { task, count, depth, puzzle: null, result: null });
    this.cards = [];
    this.ranking = []; // the cards in their order on the page
    this.dirty = new Set(); // cards to paint
    this.moving = new Set(); // cards to rank again
    this.steps = new Map(); // steps of each trajectory
    this.total = 0; // steps of all trajectories
    this.seen = new Map(); // the first trajectory that gave an answer, by the answer's text
    this.counts = { valid: 0, wrong: 0, answered: 0, pruned: 0 };
    this.distinct = 0;
    this.begin = performance.now();
    this.end = null;
    this.size = 160;
    this.colors = palette();
    $("cards").replaceChildren();
    $("note").textContent = "";
    this.sizes = new ResizeObserver(() => this.refit());
    this.scheme = () => this.refit();
    dark.addEventListener("change", this.scheme);
    this.frame = requestAnimationFrame(() => this.paint());
  }

  /** Record an event of the stream. */
  take(event, data) {
    if (event === "start") this.start(data);
    if (event === "step") this.step(data);
    if (event === "trajectory") this.finish(data);
    if (event === "pruned") this.prune(data);
    if (event === "result") this.complete(data);
  }

  /** The run is over: give the cards that are still running the state `state`. */
  close(state) {
    this.end ??= performance.now();
    for (const card of this.cards) if (card.state === "running") this.move(card, state);
  }

  /** Stop painting: another run takes the page. */
  discard() {
    cancelAnimationFrame(this.frame);
    this.sizes.disconnect();
    dark.removeEventListener("change", this.scheme);
  }

  start({ model, seed, puzzle, num_trajectories: count, max_steps: depth }) {
    const boxRows = puzzle.text.match(/^# box rows: (\d)/); // a Sudoku whose boxes lie the other way
    Object.assign(this, { puzzle: puzzle.grid, boxRows: boxRows && Number(boxRows[1]), count, depth });
    this.cards = Array.from({ length: Math.min(count, MOST_CARDS) }, (_, index) => new Card(index));
    this.ranking = [...this.cards];
    $("cards").replaceChildren(...this.cards.map((card) => card.element));
    if (this.cards.length) this.sizes.observe(this.cards[0].parts.canvas);
    const most = count > MOST_CARDS ? ` Only the first ${MOST_CARDS} are shown of ${count} trajectories; all are counted.` : "";
    $("note").textContent = `Model ${model}, seed ${seed}.${most}`;
  }

  step(data) {
    this.countSteps(data);
    const card = this.cards[data.trajectory];
    if (!card) return;
    card.see(data);
    this.dirty.add(card);
  }

  finish(data) {
    this.countSteps(data);
    const state = data.valid === null ? "answered" : data.valid ? "valid" : "wrong";
    this.counts[state]++;
    const first = this.seen.get(data.text);
    if (first === undefined) this.seen.set(data.text, data.trajectory);
    if (state !== "wrong" && first === undefined) this.distinct++;
    const card = this.cards[data.trajectory];
    if (!card) return;
    card.see(data);
    card.same = first;
    this.move(card, state);
  }

  prune(data) {
    this.countSteps(data);
    this.counts.pruned++;
    const card = this.cards[data.trajectory];
    if (!card) return;
    card.steps = data.steps;
    this.move(card, "pruned");
  }

  complete(result) {
    this.result = result;
    for (const index of result.dropped) if (this.cards[index]) this.move(this.cards[index], "dropped");
    this.close(result.complete ? "spare" : "stopped");
  }

  countSteps({ trajectory, steps }) {
    this.total += steps - (this.steps.get(trajectory) ?? 0);
    this.steps.set(trajectory, steps);
  }

  move(card, state) {
    card.state = state;
    this.dirty.add(card);
    this.moving.add(card);
  }

  refit() {
    const width = this.cards[0]?.parts.canvas.clientWidth;
    if (width) this.size = Math.round(width * Math.min(devicePixelRatio, 2));
    this.colors = palette();
    for (const card of this.cards) this.dirty.add(card);
    if (this.end) requestAnimationFrame(() => this.paint());
  }

  paint() {
    const until = performance.now() + PAINT_MS;
    for (const card of this.dirty) {
      if (performance.now() > until) break;
      this.dirty.delete(card);
      if (this.puzzle) card.paint(this, this.size, this.colors);
    }
    if (this.moving.size) this.reorder();
    this.summarise();
    if (!this.end || this.dirty.size) this.frame = requestAnimationFrame(() => this.paint());
  }

  /** Take the cards whose state has changed out of the list, and insert each before the first card that it outranks. */
  reorder() {
    const glide = this.cards.length <= MOST_MOVING && !calm.matches;
    const from = glide && this.cards.map((card) => card.element.getBoundingClientRect());
    this.ranking = this.ranking.filter((card) => !this.moving.has(card));
    for (const card of this.moving) {
      const at = this.ranking.findIndex((other) => before(card, other));
      this.ranking.splice(at < 0 ? this.ranking.length : at, 0, card);
    }
    for (let i = this.ranking.length - 1; i >= 0; i--) {
      const [card, next] = [this.ranking[i], this.ranking[i + 1]];
      if (this.moving.has(card)) $("cards").insertBefore(card.element, next?.element ?? null);
    }
    this.moving.clear();
    if (!glide) return;
    this.cards.forEach((card, i) => {
      const to = card.element.getBoundingClientRect();
      const [x, y] = [from[i].left - to.left, from[i].top - to.top];
      if (!x && !y) return;
      const path = [{ transform: `translate(${x}px, ${y}px)` }, { transform: "none" }];
      card.element.animate(path, { duration: 250, easing: "ease-out" });
    });
  }

  summarise() {
    const { valid, wrong, answered, pruned } = this.counts;
    const ended = valid + wrong + answered + pruned;
    const rest = this.count - ended;
    write("distinct-label", answered ? "distinct" : "distinct valid");
    write("distinct", this.distinct);
    write("finished", ended);
    write("of", ` of ${this.count}`);
    write("steps", this.result?.steps_run ?? this.total);
    write("seconds", (((this.end ?? performance.now()) - this.begin) / 1000).toFixed(1));
    const shares = { valid, wrong, answered, pruned, running: rest };
    for (const part of $("bar").children) part.style.flexGrow = shares[part.dataset.state];
    const words = answered ? [`${answered} answered`] : [`${valid} valid`, `${wrong} wrong`];
    if (pruned) words.push(`${pruned} pruned`);
    if (rest) words.push(this.end ? `${rest} not finished` : `${rest} running`);
    write("counts", words.join(", "));
  }
}

function write(id, value) {
  if ($(id).textContent !== String(value)) $(id).textContent = value;
}
