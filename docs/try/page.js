// The page: a picture is chosen, tokens are shown and changed, the picture follows.

import { centreSquare, withoutAlpha } from "./resample.js";
import { loadTokenizer, Sentence } from "./tokenizer.js";

const MOST_PIXELS = 80e6; // of a picture, as in Python
const LEAST_SIDE = 8;
const AROUND = 0.5; // of a patch, shown around it in a swatch

const $ = (id) => document.getElementById(id);
const milliseconds = (from) => `${Math.round(performance.now() - from)} ms`;

let tokenizer;
let ids; // of the picture
let edited; // the same with changes
let chosen = 0; // token; the one in the middle at first
let encoding = ""; // how long it took
let shown = 0; // count what was asked for, so that what comes late is dropped
let drawn = 0;
let varied = 0;

async function start() {
  try {
    tokenizer = await loadTokenizer((text) => say(text));
    describe();
    buildTokens();
    listen();
    await addExamples();
    $("file").disabled = false;
    say("Ready.");
    document.querySelector("#examples button")?.click();
  } catch (error) {
    say("");
    complain(error);
  }
}

function say(text) {
  $("status").textContent = text;
}

function complain(error) {
  if (!(error instanceof Sentence)) console.error(error);
  $("problem").textContent = error instanceof Sentence ? error.message : `Something went wrong: ${error.message}`;
  $("problem").hidden = false;
}

function describe() {
  const { name, licence, fingerprint, vocab_size: vocabulary } = tokenizer.metadata;
  $("size").textContent = `${tokenizer.size} × ${tokenizer.size} pixels`;
  $("count").textContent = `${tokenizer.rows} × ${tokenizer.columns}, each 1 of ${vocabulary.toLocaleString("en")}`;
  $("about").textContent = `Tokenizer ${name}, licence of the weights ${licence}, fingerprint ${fingerprint}.`;
  for (const id of ["original", "reconstruction"]) $(id).width = $(id).height = tokenizer.size;
}

async function addExamples() {
  const response = await fetch(new URL("examples/examples.json", import.meta.url)).catch(() => null);
  for (const { file, name } of response?.ok ? await response.json() : []) {
    const button = document.createElement("button");
    const image = document.createElement("img");
    image.src = `examples/${file}`;
    image.alt = "";
    button.type = "button";
    button.setAttribute("aria-label", `example: ${name}`);
    button.append(image);
    button.addEventListener("click", async () => show(await (await fetch(image.src)).blob(), name, button));
    const item = document.createElement("li");
    item.append(button);
    $("examples").append(item);
  }
}

function listen() {
  $("file").addEventListener("change", () => {
    if ($("file").files.length) show($("file").files[0], $("file").files[0].name);
    $("file").value = "";
  });
  for (const kind of ["dragenter", "dragover"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      $("drop").classList.add("over");
    });
  }
  document.addEventListener("dragleave", () => $("drop").classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    $("drop").classList.remove("over");
    const file = event.dataTransfer.files[0];
    if (file) show(file, file.name);
  });
  $("tokens").addEventListener("keydown", moveFocus);
  $("codes").addEventListener("submit", (event) => event.preventDefault());
  $("undo").addEventListener("click", () => change(chosen, own(ids, chosen)));
  $("undo-all").addEventListener("click", () => {
    edited = ids.slice();
    redraw();
    choose(chosen);
  });
}

// Picture -> tokens.

async function show(blob, name, button = null) {
  const now = ++shown;
  $("problem").hidden = true;
  try {
    const square = centreSquare(await readPicture(blob, name), tokenizer.size);
    const began = performance.now();
    const found = await tokenizer.encode(square);
    if (now !== shown) return;
    encoding = milliseconds(began);
    ids = found;
    edited = ids.slice();
    varied++;
    const image = new ImageData(tokenizer.size, tokenizer.size);
    for (let at = 0; at < tokenizer.size ** 2; at++) {
      image.data.set([...square.data.subarray(3 * at, 3 * at + 3), 255], 4 * at);
    }
    $("original").getContext("2d").putImageData(image, 0, 0);
    $("result").hidden = $("editor").hidden = false;
    for (const other of document.querySelectorAll("#examples button")) {
      other.setAttribute("aria-pressed", other === button);
    }
    await redraw();
    if (now !== shown) return;
    say(`${name}: ${tokenizer.tokens} tokens. Choose a token to see and change its codes.`);
    choose(chosen);
  } catch (error) {
    complain(error);
  }
}

async function readPicture(blob, name) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  } catch {
    throw new Sentence(`${name} is not a picture that this browser can read: choose a JPEG, PNG, WebP, GIF or AVIF file.`);
  }
  const { width, height } = bitmap;
  if (width * height > MOST_PIXELS) {
    throw new Sentence(`${name} has ${width} × ${height} pixels: at most ${MOST_PIXELS / 1e6} million are accepted.`);
  }
  if (Math.min(width, height) < LEAST_SIDE) {
    throw new Sentence(`${name} has ${width} × ${height} pixels: both sides must have ${LEAST_SIDE} or more.`);
  }
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white"; // behind what is transparent, as in Python
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  return withoutAlpha(context.getImageData(0, 0, width, height));
}

// Tokens -> picture.

function buildTokens() {
  $("tokens").style.gridTemplate = `repeat(${tokenizer.rows}, 1fr) / repeat(${tokenizer.columns}, 1fr)`;
  for (let token = 0; token < tokenizer.tokens; token++) {
    const button = document.createElement("button");
    button.type = "button";
    button.tabIndex = -1;
    button.addEventListener("click", () => choose(token));
    $("tokens").append(button);
  }
  chosen = Math.floor(tokenizer.rows / 2) * tokenizer.columns + Math.floor(tokenizer.columns / 2);
}

function moveFocus(event) {
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -tokenizer.columns, ArrowDown: tokenizer.columns }[event.key];
  const buttons = [...$("tokens").children];
  const from = buttons.indexOf(document.activeElement);
  if (!step || from < 0) return;
  event.preventDefault();
  const sideways = Math.abs(step) === 1;
  const column = (from % tokenizer.columns) + step;
  if (sideways && (column < 0 || column >= tokenizer.columns)) return;
  const next = buttons[from + step];
  if (!next) return;
  buttons[from].tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

async function redraw() {
  const now = ++drawn;
  const began = performance.now();
  for await (const image of tokenizer.decode([edited])) {
    if (now !== drawn) return;
    $("reconstruction").getContext("2d").putImageData(image, 0, 0);
  }
  const legend = tokenizer.semantic ? " Tokens of one colour have one semantic code." : "";
  $("times").textContent = `Encoded in ${encoding}, decoded in ${milliseconds(began)}.${legend}`;
  [...$("tokens").children].forEach((button, token) => {
    const code = tokenizer.colourCode(edited, token);
    button.style.background = `hsl(${(code * 137.508) % 360} ${45 + ((code * 7) % 35)}% ${38 + ((code * 11) % 34)}%)`;
    const names = tokenizer.codesOf(edited, token).map(({ name, value }) => `${name.toLowerCase()} ${value}`);
    button.setAttribute("aria-label", `${placeOf(token)}: ${names.join(", ")}`);
    button.classList.toggle("changed", !same(own(ids, token), own(edited, token)));
  });
  const changed = [...$("tokens").querySelectorAll(".changed")].length;
  $("changed").textContent = changed ? `${changed} ${changed === 1 ? "token" : "tokens"} changed` : "";
  $("undo-all").disabled = !changed;
}

const own = (all, token) => all.slice(token * tokenizer.codesPerToken, (token + 1) * tokenizer.codesPerToken);
const same = (one, other) => one.every((value, index) => value === other[index]);
const rowOf = (token) => Math.floor(token / tokenizer.columns);
const columnOf = (token) => token % tokenizer.columns;
const placeOf = (token) => `row ${rowOf(token) + 1}, column ${columnOf(token) + 1}`;

// One token.

function choose(token) {
  chosen = token;
  [...$("tokens").children].forEach((button, index) => {
    button.setAttribute("aria-pressed", index === token);
    button.tabIndex = index === token ? 0 : -1;
  });
  const [height, width] = [100 / tokenizer.rows, 100 / tokenizer.columns];
  for (const mark of document.querySelectorAll(".mark")) {
    Object.assign(mark.style, {
      left: `${columnOf(token) * width}%`,
      top: `${rowOf(token) * height}%`,
      width: `${width}%`,
      height: `${height}%`,
    });
  }
  $("place").textContent = `Token in ${placeOf(token)}`;
  const codes = tokenizer.codesOf(edited, token);
  const id = own(edited, token).join(", ");
  $("meaning").textContent = tokenizer.semantic
    ? `Id ${id}: pixel code ${codes[1].value} of the ${codes[1].values} under semantic code ${codes[0].value}.`
    : `Id ${id}.`;
  $("undo").disabled = same(own(ids, token), own(edited, token));
  showCodes(codes);
  showVariants(codes);
}

function showCodes(codes) {
  const inputs = codes.map(({ name, value, values }) => {
    const input = Object.assign(document.createElement("input"), { type: "number", min: 0, max: values - 1, value });
    input.addEventListener("change", () => {
      const numbers = inputs.map((each) => Math.trunc(each.valueAsNumber));
      if (numbers.every((number, index) => number >= 0 && number < codes[index].values)) {
        change(chosen, tokenizer.idsOf(numbers));
      } else {
        $("problem").textContent = `${name} must be a whole number from 0 to ${values - 1}.`;
        $("problem").hidden = false;
      }
    });
    input.dataset.name = name;
    return input;
  });
  const focused = [...$("codes").querySelectorAll("input")].indexOf(document.activeElement);
  $("codes").replaceChildren(
    ...inputs.map((input) => {
      const label = document.createElement("label");
      label.append(`${input.dataset.name} (0 to ${input.max})`, input);
      return label;
    }),
  );
  inputs[focused]?.focus();
}

/** What each pixel code of the token's semantic code would show in its place. */
async function showVariants(codes) {
  $("variants").hidden = !tokenizer.semantic;
  if (!tokenizer.semantic) return;
  const [semantic, pixel] = codes;
  const [now, token] = [++varied, chosen];
  $("variants-title").textContent = `The pixel codes under semantic code ${semantic.value}, in this place`;
  const focused = [...$("swatches").children].indexOf(document.activeElement);
  const buttons = Array.from({ length: pixel.values }, (_, code) => {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", code === pixel.value);
    button.setAttribute("aria-label", `pixel code ${code}`);
    button.append(document.createElement("canvas"), String(code));
    button.addEventListener("click", () => change(token, tokenizer.idsOf([semantic.value, code])));
    return button;
  });
  $("swatches").replaceChildren(...buttons);
  buttons[focused]?.focus();
  const pictures = buttons.map((_, code) => withToken(token, tokenizer.idsOf([semantic.value, code])));
  let code = 0;
  for await (const image of tokenizer.decode(pictures, () => now === varied)) {
    if (now !== varied) return;
    drawPatch(buttons[code++].firstChild, image, token);
  }
}

function drawPatch(canvas, image, token) {
  const [height, width] = [tokenizer.size / tokenizer.rows, tokenizer.size / tokenizer.columns];
  const fits = (value, length) => Math.max(0, Math.min(tokenizer.size - length, value));
  canvas.width = Math.round(width * (1 + 2 * AROUND));
  canvas.height = Math.round(height * (1 + 2 * AROUND));
  const left = Math.round(fits((columnOf(token) - AROUND) * width, canvas.width));
  const top = Math.round(fits((rowOf(token) - AROUND) * height, canvas.height));
  canvas.getContext("2d").putImageData(image, -left, -top);
}

function withToken(token, values) {
  const copy = edited.slice();
  copy.set(values, token * tokenizer.codesPerToken);
  return copy;
}

async function change(token, values) {
  $("problem").hidden = true;
  edited = withToken(token, values);
  await redraw();
  choose(token);
}

start();
