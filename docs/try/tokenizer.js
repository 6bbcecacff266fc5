// The exported tokenizer in onnxruntime-web, and the arithmetic of its ids. Sizes come from models/metadata.json.

import * as ort from "./runtime/ort.wasm.bundle.min.mjs";

const BATCH = 8; // pictures decoded at a time

/** A sentence for whoever uses the page. */
export class Sentence extends Error {}

// A function that returns a vector of 128 bits: valid only where WebAssembly has SIMD.
const SIMD = new Uint8Array([
  ...[0, 97, 115, 109, 1, 0, 0, 0], // \0asm, version 1
  ...[1, 5, 1, 96, 0, 1, 123], // type: () -> v128
  ...[3, 2, 1, 0], // one function of it
  ...[10, 8, 1, 6, 0, 65, 0, 253, 15, 11], // i32.const 0, i8x16.splat
]);

export async function loadTokenizer(progress) {
  if (typeof WebAssembly !== "object" || !WebAssembly.validate(SIMD)) {
    throw new Sentence(
      "This browser does not have WebAssembly with SIMD, which the tokenizer needs: current versions of Firefox, Chrome, Edge and Safari have it.",
    );
  }
  ort.env.wasm.numThreads = 1; // threads need headers that a plain file server does not send
  ort.env.wasm.wasmPaths = { wasm: new URL("./runtime/ort-wasm-simd-threaded.wasm", import.meta.url).href };
  const metadata = await (await fetched("models/metadata.json")).json();
  const sides = [];
  for (const side of ["encoder", "decoder"]) {
    progress(`Loading the ${side} of ${metadata.name} ...`);
    const bytes = new Uint8Array(await (await fetched(`models/${side}.onnx`)).arrayBuffer());
    sides.push(await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] }));
  }
  return new Tokenizer(metadata, ...sides);
}

async function fetched(path) {
  const response = await fetch(new URL(path, import.meta.url)).catch(() => null);
  if (!response?.ok) throw new Sentence(`${path} is missing beside this page: build the page with \`make try\`.`);
  return response;
}

export class Tokenizer {
  constructor(metadata, encoder, decoder) {
    this.metadata = metadata;
    this.encoder = encoder;
    this.decoder = decoder;
    this.size = metadata.image_size;
    [this.rows, this.columns] = metadata.grid;
    this.tokens = this.rows * this.columns;
    this.codesPerToken = metadata.codes_per_token;
    const { semantic_codebook_size: semanticCodes, subcodebook_sizes: sizes } = metadata;
    this.semantic = semanticCodes !== undefined;
    if (this.semantic) {
      this.sizes = Array.isArray(sizes) ? sizes : Array(semanticCodes).fill(sizes);
      this.firstIds = [0];
      for (const size of this.sizes) this.firstIds.push(this.firstIds.at(-1) + size);
    }
  }

  /** RGB bytes of a size x size picture -> ids, codesPerToken for each token. */
  async encode({ data }) {
    const area = this.size ** 2;
    const pixels = new Float32Array(3 * area);
    for (let at = 0; at < area; at++) {
      for (let channel = 0; channel < 3; channel++) {
        pixels[channel * area + at] = Math.fround(data[3 * at + channel] / 127.5) - 1;
      }
    }
    const values = new ort.Tensor("float32", pixels, [1, 3, this.size, this.size]);
    const { ids } = await this.encoder.run({ pixel_values: values });
    return Int32Array.from(ids.data, Number);
  }

  /** A list of ids of whole pictures -> their ImageData, a few at a time; stops where wanted() is false. */
  async *decode(pictures, wanted = () => true) {
    for (let from = 0; from < pictures.length && wanted(); from += BATCH) {
      const some = pictures.slice(from, from + BATCH);
      const ids = BigInt64Array.from(some.flatMap((picture) => Array.from(picture, BigInt)));
      const shape = [some.length, ...this.metadata.ids_shape];
      const { pixel_values: values } = await this.decoder.run({ ids: new ort.Tensor("int64", ids, shape) });
      for (let index = 0; index < some.length; index++) yield this.imageData(values.data, index);
      await new Promise((resume) => setTimeout(resume)); // the page answers in between
    }
  }

  imageData(values, index) {
    const area = this.size ** 2;
    const image = new ImageData(this.size, this.size);
    for (let at = 0; at < area; at++) {
      for (let channel = 0; channel < 3; channel++) {
        const value = values[(index * 3 + channel) * area + at];
        image.data[4 * at + channel] = Math.round((value + 1) * 127.5);
      }
      image.data[4 * at + 3] = 255;
    }
    return image;
  }

  /** The ids of one token as its codes, each with a name and the number of its values. */
  codesOf(ids, token) {
    if (!this.semantic) {
      const own = ids.subarray(token * this.codesPerToken, (token + 1) * this.codesPerToken);
      return Array.from(own, (value, number) => ({
        name: this.codesPerToken > 1 ? `Code ${number + 1}` : "Code",
        value,
        values: this.metadata.vocab_size,
      }));
    }
    const semantic = this.semanticOf(ids[token]);
    return [
      { name: "Semantic code", value: semantic, values: this.sizes.length },
      { name: "Pixel code", value: ids[token] - this.firstIds[semantic], values: this.sizes[semantic] },
    ];
  }

  /** The ids of a token with these codes; a pixel code that the semantic code does not have becomes its last. */
  idsOf(codes) {
    if (!this.semantic) return codes;
    const [semantic, pixel] = codes;
    return [this.firstIds[semantic] + Math.min(pixel, this.sizes[semantic] - 1)];
  }

  /** The code that colours a token. */
  colourCode(ids, token) {
    const id = ids[token * this.codesPerToken];
    return this.semantic ? this.semanticOf(id) : id;
  }

  semanticOf(id) {
    let [low, high] = [0, this.sizes.length];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.firstIds[middle] <= id) low = middle;
      else high = middle;
    }
    return low;
  }
}
