/**
 * Evolutionary search under latency and resource limits, and random search beside it.
 *
 * Li et al., "Quasar-ViT", ICS 2024, arXiv 2407.18175. Operators are read second-hand: parents are the best so far, crossover
 * takes each block whole from either parent, children are checked against the limits when they are made. Numbers are those
 * of AutoFormer's released search (microsoft/Cream, AutoFormer/evolution.py): population 50, 20 generations, 10 parents, 25
 * children of crossover and 25 of mutation, a block's genes change with probability 0.2, width and depth with 0.4.
 *
 * A set of limits that nothing meets is a result, not an endless loop: drawing stops after `tries` and the result says so.
 */
import { fold, type Key } from "../core/rng.ts";
import {
  type Budget,
  type Constants,
  type Engine,
  exceeded,
  latency,
  resources,
  tryEngine,
} from "./fpga.ts";
import {
  checkSpace,
  pick,
  randomBlock,
  randomSubnet,
  type Space,
  stream,
  subnetId,
} from "./space.ts";
import { bitOps, type BlockShape, type Subnet, type Task } from "./workload.ts";

/** Why a sub-network is not allowed, or null. */
export type Limits = (subnet: Subnet) => string | null;

/** Quality of a sub-network, higher is better; counted as one evaluation. */
export type Evaluate = (subnet: Subnet) => number;

export interface Evaluated {
  subnet: Subnet;
  score: number;
}

export interface SearchResult {
  status: "found" | "infeasible";
  best?: Evaluated;
  /** Every sub-network evaluated, in order. */
  evaluated: Evaluated[];
  /** Best score after each evaluation. */
  bestSoFar: number[];
  /** Sub-networks drawn, of which the others broke a limit or were known. */
  drawn: number;
  /** How often each limit was broken. */
  broken: Record<string, number>;
  /** Says what was found or why nothing was. */
  message: string;
}

export interface SearchOptions {
  key: Key;
  /** Evaluations at most. */
  evaluations?: number;
  /** Draws in a row without a new legal sub-network before it stops. Default 2000, ours. */
  tries?: number;
}

export interface EvolutionOptions extends SearchOptions {
  /** Sub-networks per generation. */
  population?: number;
  parents?: number;
  blockMutation?: number;
  shapeMutation?: number;
}

/**
 * Limits of latency, resources and bit operations, each optional, on a fixed engine or on the best one per sub-network. A
 * sub-network that no engine of the budget can run breaks the limit of what the budget lacks.
 *
 * @throws {RangeError} if a limit is not a number
 */
export function hardwareLimits(
  task: Task,
  budget: Budget,
  constants: Constants,
  { minFps, maxBitOps, engine }: {
    minFps?: number;
    maxBitOps?: number;
    /** The engine that all sub-networks share; without it, the best one of each. */
    engine?: Engine;
  } = {},
): Limits {
  for (const [name, value] of Object.entries({ minFps, maxBitOps })) {
    if (value === undefined || value >= 0) continue;
    throw new RangeError(
      `Cannot limit a search as ${name} must be a number from 0: ${value}`,
    );
  }
  const wrong = Object.entries(budget).find(([, value]) =>
    typeof value === "number" && !(value >= 0)
  );
  if (wrong !== undefined) {
    throw new RangeError(
      `Cannot limit a search as ${
        wrong[0]
      } of the budget must be a number from 0: ${wrong[1]}`,
    );
  }
  return (subnet) => {
    if (maxBitOps !== undefined && bitOps(subnet, task) > maxBitOps) {
      return "bit operations";
    }
    const fit = engine === undefined
      ? tryEngine(subnet, task, budget, constants)
      : { engine };
    if (fit.engine === null) return fit.lacks[0];
    const own = fit.engine;
    const over = exceeded(
      resources(own, subnet, task, constants),
      budget,
      constants,
    );
    if (over.length > 0) return over[0];
    const { fps } = latency(subnet, task, own, budget, constants);
    return minFps !== undefined && fps < minFps ? "latency" : null;
  };
}

/**
 * A child that takes width and depth from one parent and each block, whole, from either.
 *
 * Blocks beyond the shorter parent come from the longer one.
 */
export function crossover(
  a: Subnet,
  b: Subnet,
  random: () => number,
  policy: Space["policy"] = "row-wise",
): Subnet {
  const [first, second] = random() < 0.5 ? [a, b] : [b, a];
  const blocks = first.blocks.map((own, l): BlockShape => {
    const other = second.blocks[l];
    return { ...(other !== undefined && random() < 0.5 ? other : own) };
  });
  if (policy === "uniform") {
    for (const block of blocks) block.ratio8 = first.blocks[0].ratio8;
  }
  return { dim: first.dim, blocks };
}

/** A child with some genes drawn anew. */
export function mutate(
  { dim, blocks }: Subnet,
  space: Space,
  random: () => number,
  { blockMutation = 0.2, shapeMutation = 0.4 }: {
    blockMutation?: number;
    shapeMutation?: number;
  } = {},
): Subnet {
  const width = random() < shapeMutation ? pick(random, space.dims) : dim;
  const depth = random() < shapeMutation
    ? pick(random, space.depths)
    : blocks.length;
  const uniform = space.policy === "uniform";
  const shared = uniform
    ? (random() < blockMutation ? pick(random, [0, 1]) : blocks[0].ratio8)
    : undefined;
  return {
    dim: width,
    blocks: Array.from({ length: depth }, (_, l): BlockShape => {
      const fresh = randomBlock(space, random, shared);
      const own = blocks[l];
      if (own === undefined) return fresh;
      const gene = <K extends keyof BlockShape>(name: K) =>
        random() < blockMutation ? fresh[name] : own[name];
      return {
        heads: gene("heads"),
        mlpRatio: gene("mlpRatio"),
        ratio8: shared ?? gene("ratio8"),
      };
    }),
  };
}

/** What both searches share: drawing legal new sub-networks, evaluating, recording. */
class Recorder {
  readonly evaluated: Evaluated[] = [];
  readonly bestSoFar: number[] = [];
  readonly broken: Record<string, number> = {};
  drawn = 0;
  readonly seen = new Set<string>();
  readonly evaluate: Evaluate;
  readonly limits: Limits;
  readonly evaluations: number;
  readonly tries: number;

  constructor(
    evaluate: Evaluate,
    limits: Limits,
    evaluations: number,
    tries: number,
  ) {
    for (const [name, value] of Object.entries({ evaluations, tries })) {
      if (Number.isInteger(value) && value >= 1) continue;
      throw new RangeError(
        `Cannot search as ${name} must be a positive whole number: ${value}`,
      );
    }
    this.evaluate = evaluate;
    this.limits = limits;
    this.evaluations = evaluations;
    this.tries = tries;
  }

  get full(): boolean {
    return this.evaluated.length >= this.evaluations;
  }

  /** Draws until a sub-network is new and legal, and evaluates it; null after too many. */
  next(draw: () => Subnet): Evaluated | null {
    for (let i = 0; i < this.tries && !this.full; i++) {
      this.drawn++;
      const subnet = draw();
      const id = subnetId(subnet);
      if (this.seen.has(id)) continue;
      this.seen.add(id);
      const why = this.limits(subnet);
      if (why !== null) {
        this.broken[why] = (this.broken[why] ?? 0) + 1;
        continue;
      }
      const score = this.evaluate(subnet);
      if (!Number.isFinite(score)) {
        throw new RangeError(
          `Cannot search as a score must be a finite number: ${score} of ${id}`,
        );
      }
      const found = { subnet, score };
      this.evaluated.push(found);
      this.bestSoFar.push(Math.max(score, this.bestSoFar.at(-1) ?? -Infinity));
      return found;
    }
    return null;
  }

  result(): SearchResult {
    const { evaluated, bestSoFar, drawn, broken } = this;
    const best = evaluated.reduce<Evaluated | undefined>(
      (a, b) => a === undefined || b.score > a.score ? b : a,
      undefined,
    );
    const reasons = Object.entries(broken).map(([why, n]) => `${why} ${n}`);
    return {
      status: best === undefined ? "infeasible" : "found",
      best,
      evaluated,
      bestSoFar,
      drawn,
      broken,
      message: best === undefined
        ? `No sub-network meets the limits: of ${this.seen.size} different ones that were drawn, limits broken: ${
          reasons.join(", ")
        }; relax the limits or widen the space`
        : `Best of ${evaluated.length} evaluated of ${drawn} drawn: ${
          subnetId(best.subnet)
        }`,
    };
  }
}

/** Draws sub-networks at random: the baseline of every search. */
export function randomSearch(
  space: Space,
  evaluate: Evaluate,
  limits: Limits,
  { key, evaluations = 1000, tries = 2000 }: SearchOptions,
): SearchResult {
  checkSpace(space);
  const recorder = new Recorder(evaluate, limits, evaluations, tries);
  let n = 0;
  const draw = () => randomSubnet(space, fold(key, n++));
  while (!recorder.full && recorder.next(draw) !== null);
  return recorder.result();
}

/**
 * Evolutionary search: a random population, then generations of half crossover and half mutation of the best so far.
 *
 * @returns as many evaluations as asked for, unless the legal set is smaller; status "infeasible" if it is empty
 */
export function evolve(
  space: Space,
  evaluate: Evaluate,
  limits: Limits,
  {
    key,
    evaluations = 1000,
    tries = 2000,
    population = 50,
    parents = 10,
    blockMutation = 0.2,
    shapeMutation = 0.4,
  }: EvolutionOptions,
): SearchResult {
  checkSpace(space);
  for (const [name, value] of Object.entries({ population, parents })) {
    if (Number.isInteger(value) && value >= 2) continue;
    throw new RangeError(
      `Cannot evolve as ${name} must be a whole number from 2: ${value}`,
    );
  }
  const recorder = new Recorder(evaluate, limits, evaluations, tries);
  let n = 0;
  const anyone = () => randomSubnet(space, fold(key, `random ${n++}`));
  for (let i = 0; i < population; i++) {
    if (recorder.next(anyone) === null) break;
  }
  const random = stream(fold(key, "operators"));
  while (!recorder.full && recorder.evaluated.length > 0) {
    const elite = [...recorder.evaluated]
      .sort((a, b) => b.score - a.score).slice(0, parents);
    const parent = () => pick(random, elite).subnet;
    const before = recorder.evaluated.length;
    for (let i = 0; i < population; i++) {
      const child = i < population / 2
        ? () => crossover(parent(), parent(), random, space.policy)
        : () =>
          mutate(parent(), space, random, { blockMutation, shapeMutation });
      // parents that are all alike have no new children: the rest of the generation is drawn at random
      if (recorder.next(child) === null && recorder.next(anyone) === null) {
        break;
      }
    }
    if (recorder.evaluated.length === before) break;
  }
  return recorder.result();
}
