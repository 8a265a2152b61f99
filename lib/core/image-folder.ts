/**
 * A reader's own images: one folder for each class, with PNG and JPEG files in it.
 *
 * Images are cut to their middle square and brought to one size; colours become grey on request, grey
 * images get three equal channels.
 */
import { Buffer } from "node:buffer";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { extname, join } from "node:path";
import jpeg from "jpeg-js";
import { PNG } from "pngjs";
import { type Images, pickImages } from "./images.ts";
import { type Key, permutation } from "./rng.ts";

/** Pixels as read: red, green, blue, opacity. */
interface Pixels {
  width: number;
  height: number;
  /** [H, W, 4] */
  data: Uint8Array;
}

const EXTENSIONS = [".png", ".jpg", ".jpeg"];

/**
 * Pixels of a PNG or JPEG file, by its first bytes and not by its name.
 *
 * @throws {SyntaxError} if it is neither, or damaged; the message names `source`
 */
export function decodeImage(bytes: Uint8Array, source = "image"): Pixels {
  const isPng = bytes[0] === 0x89 && bytes[1] === 0x50;
  const isJpeg = bytes[0] === 0xff && bytes[1] === 0xd8;
  if (!isPng && !isJpeg) {
    throw new SyntaxError(
      `Cannot read ${source} as it must be a PNG or JPEG file: it begins with ${
        [...bytes.subarray(0, 4)].map((b) => b.toString(16).padStart(2, "0"))
          .join(" ") || "nothing"
      }`,
    );
  }
  try {
    const { width, height, data } = isPng
      ? PNG.sync.read(Buffer.from(bytes))
      : jpeg.decode(bytes, { useTArray: true, maxMemoryUsageInMB: 512 });
    if (data.length !== width * height * 4 || data.length === 0) {
      throw new RangeError(`${data.length} values for ${width} x ${height}`);
    }
    return { width, height, data };
  } catch (error) {
    throw new SyntaxError(
      `Cannot read ${source} as the ${
        isPng ? "PNG" : "JPEG"
      } file is damaged: ${(error as Error).message}`,
    );
  }
}

/**
 * The middle square of an image, brought to size x size by the mean of the area that each pixel covers.
 * What is transparent becomes white.
 *
 * @param channels 3, or 1 for grey: 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601)
 * @returns [size, size, channels]
 */
export function squareImage(
  { width, height, data }: Pixels,
  size: number,
  channels: 1 | 3,
): Uint8Array {
  const side = Math.min(width, height);
  const left = Math.floor((width - side) / 2);
  const top = Math.floor((height - side) / 2);
  const out = new Uint8Array(size * size * channels);
  const step = side / size;
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      const sum = [0, 0, 0];
      let area = 0;
      const [y0, y1, x0, x1] = [y, y + 1, x, x + 1].map((v) => v * step);
      for (let j = Math.floor(y0); j < Math.min(Math.ceil(y1), side); j++) {
        for (let i = Math.floor(x0); i < Math.min(Math.ceil(x1), side); i++) {
          const covered = (Math.min(j + 1, y1) - Math.max(j, y0)) *
            (Math.min(i + 1, x1) - Math.max(i, x0));
          const from = ((top + j) * width + left + i) * 4;
          const opacity = data[from + 3] / 255;
          for (let c = 0; c < 3; c++) {
            sum[c] += covered *
              (data[from + c] * opacity + 255 * (1 - opacity));
          }
          area += covered;
        }
      }
      const [r, g, b] = sum.map((s) => s / area);
      const to = (y * size + x) * channels;
      if (channels === 1) {
        out[to] = Math.round(0.299 * r + 0.587 * g + 0.114 * b);
      } else {
        out.set([r, g, b].map(Math.round), to);
      }
    }
  }
  return out;
}

/** What `readImageFolder` reads. */
export interface ImageFolder {
  images: Images;
  /** Names of the folders, by label. */
  classes: string[];
}

/**
 * Images of a folder with a folder for each class. Folders and files whose names begin with a dot are passed over.
 *
 * @param size Height and width that all images are brought to
 * @param channels 3 (default), or 1 for grey
 * @throws {RangeError} if there is no such folder, there are fewer than two classes or a class has no image,
 *   SyntaxError naming the file if one is damaged
 * @example
 * ```ts
 * const { images, classes } = readImageFolder("photos", { size: 32 });
 * ```
 */
export function readImageFolder(
  path: string,
  { size, channels = 3 }: { size: number; channels?: 1 | 3 },
): ImageFolder {
  if (!Number.isSafeInteger(size) || size < 1) {
    throw new RangeError(
      `Cannot read images as size must be a positive integer: ${size}`,
    );
  }
  if (channels !== 1 && channels !== 3) {
    throw new RangeError(
      `Cannot read images as channels must be 1 or 3: ${channels}`,
    );
  }
  if (!existsSync(path) || !statSync(path).isDirectory()) {
    throw new RangeError(
      `Cannot read images as ${path} must be a folder with a folder for each class: ${
        existsSync(path) ? "it is a file" : "there is none"
      }`,
    );
  }
  // Names that begin with a dot are the system's or an editor's: .ipynb_checkpoints, ._0.png
  const entries = (folder: string) =>
    readdirSync(folder).filter((name) => !name.startsWith(".")).sort();
  const isFolder = (name: string) =>
    statSync(name, { throwIfNoEntry: false })?.isDirectory() === true;
  const classes = entries(path).filter((name) => isFolder(join(path, name)));
  if (classes.length < 2 || classes.length > 256) {
    throw new RangeError(
      `Cannot read images as ${path} must have from 2 to 256 folders, one for each class: ${classes.length}`,
    );
  }
  const files = classes.flatMap((name, label) => {
    const found = entries(join(path, name)).filter((file) =>
      EXTENSIONS.includes(extname(file).toLowerCase()) &&
      !isFolder(join(path, name, file))
    );
    if (found.length === 0) {
      throw new RangeError(
        `Cannot read images as every class needs some: no .png, .jpg or .jpeg file in ${
          join(path, name)
        }`,
      );
    }
    return found.map((file) => ({ file: join(path, name, file), label }));
  });
  const images = new Uint8Array(files.length * size * size * channels);
  files.forEach(({ file }, i) => {
    const pixels = decodeImage(readFileSync(file), file);
    images.set(
      squareImage(pixels, size, channels),
      i * size * size * channels,
    );
  });
  return {
    images: {
      count: files.length,
      height: size,
      width: size,
      channels,
      images,
      labels: Uint8Array.from(files, ({ label }) => label),
    },
    classes,
  };
}

/**
 * Images divided at random into two parts, the second with `share` of each class. A class of two or more images has some in
 * both parts, one of a single image has it in the first.
 *
 * @throws {RangeError} unless the share is above 0 and below 1, and some class has two images
 */
export function divideImages(
  all: Images,
  share: number,
  key: Key,
): { train: Images; test: Images } {
  if (!(share > 0 && share < 1)) {
    throw new RangeError(
      `Cannot divide ${all.count} images as the share must be above 0 and below 1: ${share}`,
    );
  }
  const counts = new Map<number, number>();
  for (const label of all.labels) {
    counts.set(label, (counts.get(label) ?? 0) + 1);
  }
  const held = new Map(
    [...counts].map(([label, n]) => [
      label,
      n < 2 ? 0 : Math.min(n - 1, Math.max(1, Math.round(n * share))),
    ]),
  );
  const train: number[] = [];
  const test: number[] = [];
  for (const i of permutation(key, all.count)) {
    const left = held.get(all.labels[i])!;
    held.set(all.labels[i], left - 1);
    (left > 0 ? test : train).push(i);
  }
  if (test.length === 0) {
    throw new RangeError(
      `Cannot divide ${all.count} images as some class must have at least two: ${counts.size} classes`,
    );
  }
  return { train: pickImages(all, train), test: pickImages(all, test) };
}

/**
 * Images side by side as a PNG file.
 *
 * @param zoom Pixels of the file for each pixel of an image, default 2
 */
export function contactSheet(
  { count, height, width, channels: C, images }: Images,
  { columns = count, zoom = 2, gap = 4 }: {
    columns?: number;
    zoom?: number;
    gap?: number;
  } = {},
): Uint8Array {
  const rows = Math.ceil(count / columns);
  const png = new PNG({
    width: columns * (width * zoom + gap) - gap,
    height: rows * (height * zoom + gap) - gap,
  });
  png.data.fill(255);
  for (let n = 0; n < count; n++) {
    const left = (n % columns) * (width * zoom + gap);
    const top = Math.floor(n / columns) * (height * zoom + gap);
    for (let y = 0; y < height * zoom; y++) {
      for (let x = 0; x < width * zoom; x++) {
        const from = ((n * height + Math.floor(y / zoom)) * width +
          Math.floor(x / zoom)) * C;
        const to = ((top + y) * png.width + left + x) * 4;
        for (let c = 0; c < 3; c++) {
          png.data[to + c] = images[from + (C === 1 ? 0 : c)];
        }
      }
    }
  }
  return PNG.sync.write(png);
}
