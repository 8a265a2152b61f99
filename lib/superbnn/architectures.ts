/**
 * Shapes of the networks of SupeRBNN and the encoding of their inputs, for training.
 *
 * SupeRBNN: Z. Li et al., MICRO 2023, arXiv 2309.12212. VGG-Small and a perceptron are the networks recalled
 * from it; widths and the three bits of a colour are our choice.
 */
import type { Images } from "../core/images.ts";
import { convOutput, type InputEncoding, patchIndices } from "./network.ts";
import type { Gather } from "./layers.ts";

/** A layer to be trained; the score layer is added behind the last. */
export type LayerSpec =
  | { kind: "dense"; outputs: number }
  | { kind: "conv"; channels: number; kernel?: number; pad?: number }
  | { kind: "pool"; size: number };

/** Fully connected layers. */
export function mlp(hidden: readonly number[] = [256, 256]): LayerSpec[] {
  return hidden.map((outputs) => ({ kind: "dense", outputs }));
}

/**
 * A small network in the style of VGG: 3x3 convolutions, each with pooling, and one dense layer.
 *
 * Default: 32C3-P2-64C3-P2-128C3-P2, dense 256: what two cores can train in minutes.
 */
export function vggSmall(
  { channels = [32, 64, 128], dense = [256] }: {
    channels?: readonly number[];
    dense?: readonly number[];
  } = {},
): LayerSpec[] {
  return [
    ...channels.flatMap((c): LayerSpec[] => [
      { kind: "conv", channels: c, kernel: 3, pad: 1 },
      { kind: "pool", size: 2 },
    ]),
    ...mlp(dense),
  ];
}

/** Bits by the mean of every pixel over the training images: one bit a number. */
export function meanEncoding(data: Images): InputEncoding {
  const { count, height, width, channels, images } = data;
  const size = height * width * channels;
  const thresholds = new Float64Array(size);
  for (let i = 0; i < images.length; i++) thresholds[i % size] += images[i];
  for (let i = 0; i < size; i++) thresholds[i] /= count;
  return { height, width, channels, levels: 1, thresholds };
}

/** Bits by fixed thresholds, equally spaced in (0, 256): a thermometer code of `levels` bits a number. */
export function thermometerEncoding(
  { height, width, channels }: Pick<Images, "height" | "width" | "channels">,
  levels: number,
): InputEncoding {
  if (!Number.isInteger(levels) || levels < 1 || levels > 255) {
    throw new RangeError(
      `Cannot encode images as levels must be an integer from 1 to 255: ${levels}`,
    );
  }
  const thresholds = Float64Array.from(
    { length: height * width * channels * levels },
    (_, i) => 256 * (i % levels + 1) / (levels + 1) - 0.5,
  );
  return { height, width, channels, levels, thresholds };
}

/** A layer's place in the network. */
export interface Plan {
  /** Of the layer's input. */
  height: number;
  width: number;
  channels: number;
  pool: number | null;
  /** null for pooling. */
  gather: Gather | null;
  outputs: number;
  conv: { kernel: number; pad: number } | null;
}

/** Shapes of all layers, the score layer included. */
export function planOf(
  specs: readonly LayerSpec[],
  encoding: InputEncoding,
  classes: number,
  real: boolean,
): Plan[] {
  let { height, width } = encoding;
  let channels = encoding.channels * (real ? 1 : encoding.levels);
  const all: LayerSpec[] = [...specs, { kind: "dense", outputs: classes }];
  return all.map((spec, i) => {
    const here = { height, width, channels };
    if (spec.kind === "pool") {
      if (height % spec.size !== 0 || width % spec.size !== 0) {
        throw new RangeError(
          `Cannot train as the windows of layer ${i} must tile the map: size ${spec.size}, map ${height} x ${width}`,
        );
      }
      height /= spec.size;
      width /= spec.size;
      return {
        ...here,
        pool: spec.size,
        gather: null,
        outputs: channels,
        conv: null,
      };
    }
    if (spec.kind === "dense") {
      const fanIn = height * width * channels;
      [height, width, channels] = [1, 1, spec.outputs];
      return {
        ...here,
        pool: null,
        gather: { indices: null, fanIn, positions: 1, outside: -1 },
        outputs: spec.outputs,
        conv: null,
      };
    }
    const { kernel = 3, pad = 1 } = spec;
    const conv = { kernel, pad, stride: 1 };
    const indices = patchIndices({ ...here, inChannels: channels, ...conv });
    const fanIn = kernel * kernel * channels;
    height = convOutput(conv, height);
    width = convOutput(conv, width);
    channels = spec.channels;
    return {
      ...here,
      pool: null,
      gather: {
        indices,
        fanIn,
        positions: height * width,
        outside: real ? 0 : -1,
      },
      outputs: spec.channels,
      conv: { kernel, pad },
    };
  });
}
