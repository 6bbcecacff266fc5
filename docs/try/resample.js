// The centre of a picture at the tokenizer's size, pixel for pixel as Pillow makes it (Image.resize, bicubic, reducing_gap 3), so
// that the tokenizer sees what it sees in Python. Pillow computes in two passes of fixed-point numbers, after whole blocks of pixels
// have been averaged in much larger pictures.

const PRECISION = 22; // bits after the binary point of a weight
const GAP = 3; // blocks are averaged down to this many times the target
const SUPPORT = 2; // pixels that the bicubic kernel reaches

/** An RGB picture: {width, height, data: Uint8 RGB} of {width, height, data: Uint8 RGBA}. */
export function withoutAlpha({ width, height, data }) {
  const rgb = new Uint8ClampedArray(width * height * 3);
  for (let from = 0, to = 0; to < rgb.length; from += 4, to += 3) {
    rgb[to] = data[from];
    rgb[to + 1] = data[from + 1];
    rgb[to + 2] = data[from + 2];
  }
  return { width, height, data: rgb };
}

/** The largest centred square of an RGB picture, resized to size x size pixels. */
export function centreSquare(picture, size) {
  const scale = Math.min(picture.width / size, picture.height / size);
  const left = (picture.width - scale * size) / 2;
  const top = (picture.height - scale * size) / 2;
  const right = Math.min(left + scale * size, picture.width);
  const bottom = Math.min(top + scale * size, picture.height);
  return resize(picture, size, [Math.max(left, 0), Math.max(top, 0), right, bottom]);
}

function resize(picture, size, box) {
  const whole = box[0] === 0 && box[1] === 0 && box[2] === picture.width && box[3] === picture.height;
  if (whole && picture.width === size && picture.height === size) return picture;
  const factors = [0, 1].map((axis) => Math.max(1, Math.trunc((box[axis + 2] - box[axis]) / size / GAP)));
  if (factors[0] > 1 || factors[1] > 1) {
    const around = neighbourhood(picture, size, box);
    picture = averaged(picture, around, factors);
    box = box.map((edge, index) => (edge - around[index % 2]) / factors[index % 2]);
  }
  const across = weights(picture.width, box[0], box[2], size);
  const down = weights(picture.height, box[1], box[3], size);
  return vertical(horizontal(picture, size, across, box), size, down, box);
}

// The box and what the kernel sees around it, in whole pixels.
function neighbourhood(picture, size, box) {
  const reach = [0, 1].map((axis) => ((SUPPORT - 0.5) * (box[axis + 2] - box[axis])) / size);
  return [
    Math.max(0, Math.trunc(box[0] - reach[0])),
    Math.max(0, Math.trunc(box[1] - reach[1])),
    Math.min(picture.width, Math.ceil(box[2] + reach[0])),
    Math.min(picture.height, Math.ceil(box[3] + reach[1])),
  ];
}

function averaged(picture, [left, top, right, bottom], [across, down]) {
  const width = Math.ceil((right - left) / across);
  const height = Math.ceil((bottom - top) / down);
  const data = new Uint8ClampedArray(width * height * 3);
  for (let y = 0; y < height; y++) {
    const firstRow = top + y * down;
    const lastRow = Math.min(firstRow + down, bottom);
    for (let x = 0; x < width; x++) {
      const first = left + x * across;
      const last = Math.min(first + across, right);
      const count = (last - first) * (lastRow - firstRow);
      const inverse = Math.floor(2 ** 24 / count);
      let [red, green, blue] = Array(3).fill(count >> 1);
      for (let row = firstRow; row < lastRow; row++) {
        for (let at = (row * picture.width + first) * 3, end = at + (last - first) * 3; at < end; at += 3) {
          red += picture.data[at];
          green += picture.data[at + 1];
          blue += picture.data[at + 2];
        }
      }
      const to = (y * width + x) * 3;
      data[to] = Math.floor((red * inverse) / 2 ** 24);
      data[to + 1] = Math.floor((green * inverse) / 2 ** 24);
      data[to + 2] = Math.floor((blue * inverse) / 2 ** 24);
    }
  }
  return { width, height, data };
}

function bicubic(x) {
  x = Math.abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((x - 5) * x + 8) * x * -0.5 + 2 : 0;
}

// For each target pixel: the first source pixel and the fixed-point weights from there on.
function weights(length, begin, end, size) {
  [begin, end] = [Math.fround(begin), Math.fround(end)];
  const scale = Math.fround(end - begin) / size;
  const stretch = Math.max(scale, 1);
  const support = SUPPORT * stretch;
  return Array.from({ length: size }, (_, target) => {
    const centre = begin + (target + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const last = Math.min(length, Math.trunc(centre + support + 0.5));
    const exact = Array.from({ length: last - first }, (_, x) => bicubic((x + first - centre + 0.5) * (1 / stretch)));
    const sum = exact.reduce((total, weight) => total + weight, 0);
    const fixed = exact.map((weight) => {
      const scaled = (weight / sum) * 2 ** PRECISION;
      return Math.trunc(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
    });
    return { first, fixed: Int32Array.from(fixed) };
  });
}

const HALF = 1 << (PRECISION - 1);

function horizontal(picture, size, across, box) {
  if (picture.width === size && box[0] === 0 && box[2] === size) return picture;
  const data = new Uint8ClampedArray(size * picture.height * 3);
  for (let y = 0; y < picture.height; y++) {
    for (let x = 0; x < size; x++) {
      const { first, fixed } = across[x];
      add(data, (y * size + x) * 3, picture.data, (y * picture.width + first) * 3, 3, fixed);
    }
  }
  return { width: size, height: picture.height, data };
}

function vertical(picture, size, down, box) {
  if (picture.height === size && box[1] === 0 && box[3] === size) return picture;
  const data = new Uint8ClampedArray(picture.width * size * 3);
  for (let y = 0; y < size; y++) {
    const { first, fixed } = down[y];
    for (let x = 0; x < picture.width; x++) {
      add(data, (y * picture.width + x) * 3, picture.data, (first * picture.width + x) * 3, picture.width * 3, fixed);
    }
  }
  return { width: picture.width, height: size, data };
}

function add(target, to, source, from, step, fixed) {
  let [red, green, blue] = [HALF, HALF, HALF];
  for (let k = 0, at = from; k < fixed.length; k++, at += step) {
    red += source[at] * fixed[k];
    green += source[at + 1] * fixed[k];
    blue += source[at + 2] * fixed[k];
  }
  target[to] = red >> PRECISION; // the array clamps to 0..255
  target[to + 1] = green >> PRECISION;
  target[to + 2] = blue >> PRECISION;
}
