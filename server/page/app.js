// The form, the link that reproduces a run, and the run itself.

import { ask, events, key, Refusal, sentence } from "./api.js";
import { draw, palette, read } from "./boards.js";
import { Trajectories } from "./trajectories.js";

const PRUNE = { prune: { keep: 0.5, steps: [2, 4, 8] } };
const MOST_COUNTED = 1000; // as the server counts solutions: so many or more
const QUIET_MS = 3000; // after this long without an event, the page asks whether the server has an engine
const NARROW = matchMedia("(max-width: 899px)");

const $ = (id) => document.getElementById(id);
const form = $("form");
const field = form.elements;

let tasks = []; // as GET /v1/tasks lists them, each with the modes that a loaded model offers
let shown = null; // the run on the page
let running = null; // the AbortController of the run in progress

// --- the form

const mode = () => field.mode.value;
const chosen = () => tasks.find((task) => task.name === field.task.value);

/** The typed puzzle as the API takes it: parsed if it is JSON, else as text. */
function puzzle() {
  const typed = field.puzzle.value;
  try {
    return /^\s*[[{]/.test(typed) ? JSON.parse(typed) : typed;
  } catch {
    return typed;
  }
}

const spelled = (example) => (typeof example === "string" ? example : JSON.stringify(example));

/** The label of a task: the beginning of its title, with its name if other titles begin the same. */
function label(task) {
  const [title] = task.title.split(":");
  return tasks.some((other) => other !== task && other.title.split(":")[0] === title) ? `${title}, ${task.name}` : title;
}

function showMode() {
  const kept = field.task.value;
  const able = tasks.filter((task) => task[mode()]);
  field.task.replaceChildren(...able.map((task) => new Option(label(task), task.name)));
  if (able.some((task) => task.name === kept)) field.task.value = kept;
  form.dataset.mode = mode();
  $("k-label").textContent = mode() === "solve" ? "Trajectories" : "Boards";
  $("go").disabled = !able.length;
  showTask(kept);
  if (!able.length) refuse(`No loaded model can ${mode()}. Choose the other mode, or start the server with another model.`);
}

/** Show the chosen task. If it is not the one that was shown `before`, fill in its first example. */
function showTask(before) {
  const task = chosen();
  if (!task) return;
  $("random").disabled = !task.checked; // the data set of a task without code is not here
  for (const option of field.stop.options) option.disabled = !task.checked && option.value !== "all";
  if (!task.checked) field.stop.value = "all";
  $("title").textContent = task.title.slice(task.title.indexOf(":") + 1).trim().replace(/^./, (letter) => letter.toUpperCase());
  $("examples").replaceChildren(...task.examples.map((example, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = i + 1;
    button.title = task.formats[i];
    button.ariaLabel = `Example ${i + 1}: ${task.formats[i]}`;
    button.addEventListener("click", () => {
      fillPuzzle(spelled(example));
      $("spelling").textContent = `${task.formats[i][0].toUpperCase()}${task.formats[i].slice(1)}.`;
    });
    return button;
  }));
  if (task.name !== before) fillPuzzle(spelled(task.examples[0]));
}

function fillPuzzle(text) {
  field.puzzle.value = text;
  showPreview();
}

function showPreview() {
  const grid = chosen() && read(chosen().name, puzzle());
  $("preview").hidden = !grid;
  if (grid) draw($("preview"), Math.round(144 * Math.min(devicePixelRatio, 2)), palette(), chosen().name, grid);
}

async function randomPuzzle() {
  clearRefusal();
  try {
    const drawn = await ask(`v1/tasks/${encodeURIComponent(field.task.value)}/puzzle`);
    fillPuzzle(drawn.puzzle.text);
    $("spelling").textContent = "Drawn from the held-out puzzles that the models are measured on; it was never used in training.";
  } catch (error) {
    fail(error);
  }
}

// --- the link: the values of the fields, in the part of the address that is not sent to any server

const LINKED = ["mode", "task", "puzzle", "seed", "k", "depth", "temperature", "symmetries", "guidance", "stop"];

function link(seed) {
  const values = new URLSearchParams();
  for (const name of LINKED) if (name !== "puzzle" || mode() === "solve") values.set(name, field[name].value);
  values.set("seed", seed);
  return `#${values}`;
}

/** Fill the form from the address and run it. Does nothing if the address is no link to a run. */
function follow() {
  const values = new URLSearchParams(location.hash.slice(1));
  if (!values.has("task") || !tasks.length) return;
  if (["solve", "generate"].includes(values.get("mode"))) field.mode.value = values.get("mode");
  showMode();
  for (const name of LINKED) if (name !== "mode" && values.has(name)) field[name].value = values.get(name);
  if (!chosen()) {
    showMode();
    refuse(`The link asks for the task ${values.get("task")}, but this server has no model for it. Choose another task.`);
    return;
  }
  showTask(chosen().name);
  showPreview();
  form.requestSubmit();
}

// --- the run

function request() {
  const common = {
    task: field.task.value,
    max_steps: field.depth.valueAsNumber,
    temperature: field.temperature.valueAsNumber,
    symmetries: field.symmetries.value === "true",
    guidance: field.guidance.value === "prune" ? PRUNE : "none",
    stop: field.stop.value,
    stream: true,
    stream_steps: true,
    ...(field.seed.value && { seed: field.seed.valueAsNumber }),
  };
  const count = field.k.valueAsNumber;
  return mode() === "solve" ? { ...common, puzzle: puzzle(), num_trajectories: count } : { ...common, num_samples: count };
}

async function run() {
  stop();
  clearRefusal();
  shown?.discard();
  const mine = (running = new AbortController());
  const body = request();
  const trajectories = (shown = new Trajectories(body.task, field.k.valueAsNumber, body.max_steps));
  $("welcome").hidden = true;
  $("summary").hidden = false;
  $("copy").disabled = true;
  $("halt").disabled = false;
  $("run").ariaBusy = "true";
  say(`Running ${field.k.value} ${mode() === "solve" ? "trajectories" : "boards"}.`);
  const quiet = watchEngine();
  try {
    for await (const { event, data } of events(`v1/${mode()}`, body, mine.signal)) {
      quiet.heard();
      if (event === "start") {
        history.replaceState(null, "", link(data.seed));
        $("copy").disabled = false;
      }
      trajectories.take(event, data);
      if (event === "start" && NARROW.matches) $("run").scrollIntoView();
    }
    const { valid, wrong, answered } = trajectories.counts;
    const { solutions } = trajectories.result;
    const all = solutions === null ? "" : ` of ${solutions}${solutions === MOST_COUNTED ? " or more" : ""}`;
    const found = answered ? `${answered} answers` : `${valid} of ${valid + wrong} answers valid`;
    say(`Ended: ${found}, ${trajectories.distinct}${all} distinct.`);
    if (!trajectories.result.complete) refuse("The deadline came before all trajectories had ended. Run fewer, or set a smaller depth.");
  } catch (error) {
    trajectories.close("stopped");
    if (running !== mine) return; // another run has taken its place
    $("summary").hidden = !trajectories.puzzle; // nothing to show if the run has not begun
    if (error.name === "AbortError") say("Stopped.");
    else fail(error);
  } finally {
    quiet.end();
    if (running === mine) {
      running = null;
      $("halt").disabled = true;
      $("run").ariaBusy = "false";
    }
  }
}

function stop() {
  running?.abort();
}

/** A run outlives its engine: while the server has no engine, the page says that the run goes on later. */
function watchEngine() {
  let last = performance.now();
  let told = false;
  const timer = setInterval(async () => {
    if (performance.now() - last < QUIET_MS) return;
    const problem = await ask("health/ready").then(() => null, (error) => error.problem ?? null);
    if (problem?.status === 503 && performance.now() - last >= QUIET_MS) {
      told = true;
      refuse("The engine is restarting. Wait: the run continues by itself and gives the same boards.");
    }
  }, QUIET_MS / 3);
  return {
    heard() {
      last = performance.now();
      if (told) clearRefusal();
      told = false;
    },
    end: () => clearInterval(timer),
  };
}

// --- messages

const say = (news) => ($("news").textContent = news);
const clearRefusal = () => ($("alert").textContent = "");

function refuse(text) {
  $("alert").textContent = text;
  if (NARROW.matches) $("alert").scrollIntoView({ block: "nearest" }); // it is below the form
}

function fail(error) {
  if (error instanceof Refusal && error.problem.status === 401) askKey(error);
  else refuse(sentence(error));
}

function askKey(error) {
  $("entry").hidden = false;
  refuse(key.get() ? sentence(error) : "This server needs an API key. Enter yours and press “Use this key”.");
  $("key").focus();
}

async function copyLink() {
  try {
    await navigator.clipboard.writeText(location.href);
    $("copy").textContent = "Copied";
  } catch {
    $("copy").textContent = "Copy it from the address bar";
  }
  setTimeout(() => ($("copy").textContent = "Copy link"), 2000);
}

// --- start

async function load() {
  clearRefusal();
  try {
    const [kinds, models] = await Promise.all([ask("v1/tasks"), ask("v1/models")]);
    const generates = (task) => models.some((model) => model.task === task.name && model.generates);
    tasks = kinds.map((task) => ({ ...task, solve: task.models.length > 0, generate: generates(task) }));
  } catch (error) {
    fail(error);
    return;
  }
  $("entry").hidden = true;
  $("fields").disabled = false;
  showMode();
  follow();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
form.addEventListener("change", (event) => {
  if (event.target.name === "mode") showMode();
  if (event.target.name === "task") showTask();
});
field.puzzle.addEventListener("input", showPreview);
field.puzzle.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
$("random").addEventListener("click", randomPuzzle);
$("halt").addEventListener("click", stop);
$("copy").addEventListener("click", copyLink);
$("enter").addEventListener("click", () => {
  key.set($("key").value);
  load();
});
$("key").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  $("enter").click();
});
addEventListener("keydown", (event) => event.key === "Escape" && stop());
addEventListener("hashchange", follow);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showPreview);
load();
