/**
 * Formulas over parameters: parsed once, checked for units once, evaluated many times.
 *
 * A formula holds numbers, parameter names, + - * / ^, parentheses and the functions of `BUILT_IN` or of
 * the caller. Every quantity is reckoned in base units (kg, J, m, s, K and the words of `units.ts`), so the
 * unit of the result follows from the formula and is checked before any number is.
 *
 * Parsing is that of math.js; everything that is not arithmetic (assignment, indexing, text) is refused.
 */
import { type MathNode, parse } from "mathjs/number";
import {
  type Closure,
  closureOf,
  combine,
  type Expression,
  numberOf,
  type Operator,
  valueOf,
} from "./expression.ts";
import type { FormulaFunctions } from "./inventory.ts";
import {
  dimensionText,
  ONE,
  parseUnit,
  sameDimension,
  timesUnit,
  type Unit,
} from "./units.ts";

/** A formula ready to run; the result is in base units. */
export interface CompiledFormula {
  expression: Expression;
  evaluate: Closure;
  /** Of the result: the bases; its factor is 1. */
  unit: Unit;
  /** Indices of the parameters that it uses. */
  uses: number[];
}

/** What names mean: the place of a parameter among the values, and its unit. */
export type Lookup = (
  name: string,
) => { index: number; unit: Unit } | undefined;

interface Typed {
  run: Expression;
  unit: Unit;
  /** Value of a part without parameters, which an exponent must be. */
  constant?: number;
}

const bare = (unit: Unit): Unit => ({ factor: 1, powers: unit.powers });

/** Functions that every formula may call. `same`: the arguments share a unit, which is the result's. */
const BUILT_IN: Record<
  string,
  { units: "plain" | "same" | "root"; count?: number; f: typeof Math.max }
> = {
  exp: { units: "plain", count: 1, f: Math.exp },
  log: { units: "plain", count: 1, f: Math.log },
  ln: { units: "plain", count: 1, f: Math.log },
  log2: { units: "plain", count: 1, f: Math.log2 },
  log10: { units: "plain", count: 1, f: Math.log10 },
  floor: { units: "plain", count: 1, f: Math.floor },
  ceil: { units: "plain", count: 1, f: Math.ceil },
  round: { units: "plain", count: 1, f: Math.round },
  abs: { units: "same", count: 1, f: Math.abs },
  min: { units: "same", f: Math.min },
  max: { units: "same", f: Math.max },
  sqrt: { units: "root", count: 1, f: Math.sqrt },
};

/** Names that are not free for parameters. */
export const RESERVED = new Set([...Object.keys(BUILT_IN), "pi"]);

class Compiler {
  readonly uses = new Set<number>();
  readonly text: string;
  readonly lookup: Lookup;
  readonly functions: FormulaFunctions;

  constructor(text: string, lookup: Lookup, functions: FormulaFunctions) {
    this.text = text;
    this.lookup = lookup;
    this.functions = functions;
  }

  fail(message: string): never {
    throw new SyntaxError(
      `Cannot use the formula "${this.text}" as ${message}`,
    );
  }

  same(what: string, parts: Typed[]): Unit {
    const [first, ...others] = parts;
    for (const { unit } of others) {
      if (!sameDimension(first.unit, unit)) {
        this.fail(
          `${what} needs equal units: ${dimensionText(first.unit)} and ${
            dimensionText(unit)
          }`,
        );
      }
    }
    return first.unit;
  }

  plain(what: string, { unit }: Typed): void {
    if (unit.powers.length > 0) {
      this.fail(`${what} needs a plain number: ${dimensionText(unit)}`);
    }
  }

  operator(op: string, parts: Typed[]): Typed {
    const [a, b] = parts;
    const f = a.run;
    const joined = () => combine(op as Operator, f, b.run);
    if (b === undefined) {
      if (op === "+") return a;
      if (op === "-") {
        const constant = a.constant === undefined ? undefined : -a.constant;
        return { run: combine("*", numberOf(-1), f), unit: a.unit, constant };
      }
    } else if (op === "+") {
      return { run: joined(), unit: this.same("+", parts) };
    } else if (op === "-") {
      return { run: joined(), unit: this.same("-", parts) };
    } else if (op === "*") {
      return { run: joined(), unit: timesUnit(a.unit, b.unit) };
    } else if (op === "/") {
      const constant = a.constant !== undefined && b.constant !== undefined
        ? a.constant / b.constant
        : undefined;
      const unit = timesUnit(a.unit, b.unit, -1);
      return { run: joined(), unit, constant };
    } else if (op === "^") {
      this.plain("an exponent", b);
      if (a.unit.powers.length === 0) {
        return { run: joined(), unit: ONE };
      }
      const power = b.constant;
      if (power === undefined) {
        this.fail("a quantity with a unit needs a number as exponent");
      }
      return {
        run: joined(),
        unit: timesUnit(ONE, a.unit, power),
      };
    }
    return this.fail(`"${op}" is not arithmetic`);
  }

  call(name: string, parts: Typed[]): Typed {
    const runs = parts.map(({ run }) => run);
    if (Object.hasOwn(this.functions, name)) {
      const { arguments: wanted, unit, evaluate } = this.functions[name];
      if (wanted.length !== parts.length) {
        this.fail(
          `${name} takes ${wanted.length} arguments: ${parts.length} given`,
        );
      }
      const args = wanted.map((text, i): Expression => {
        const target = parseUnit(text);
        if (!sameDimension(target, parts[i].unit)) {
          this.fail(
            `argument ${i + 1} of ${name} is in ${text}: ${
              dimensionText(parts[i].unit)
            }`,
          );
        }
        return combine("/", runs[i], numberOf(target.factor));
      });
      const result = parseUnit(unit);
      const call: Expression = { op: "call", f: evaluate, args };
      return {
        run: combine("*", call, numberOf(result.factor)),
        unit: bare(result),
      };
    }
    if (!Object.hasOwn(BUILT_IN, name)) {
      const known = [...Object.keys(BUILT_IN), ...Object.keys(this.functions)];
      this.fail(
        `there is no function ${name}; there are ${
          known.join(", ")
        }; others come with the option functions, those of the AQFP inventory from formulaFunctions()`,
      );
    }
    const { units, count, f } = BUILT_IN[name];
    if (parts.length !== (count ?? Math.max(1, parts.length))) {
      this.fail(`${name} takes ${count ?? "some"} arguments: ${parts.length}`);
    }
    if (units === "plain") parts.forEach((part) => this.plain(name, part));
    const unit = units === "plain"
      ? ONE
      : units === "root"
      ? timesUnit(ONE, parts[0].unit, 0.5)
      : this.same(name, parts);
    return { run: { op: "call", f, args: runs }, unit };
  }

  node(node: MathNode): Typed {
    if (node.type === "ConstantNode") {
      const { value } = node as MathNode & { value: unknown };
      if (typeof value !== "number" || !Number.isFinite(value)) {
        this.fail(`${value} is not a number`);
      }
      return { run: numberOf(value), unit: ONE, constant: value };
    }
    if (node.type === "SymbolNode") {
      const { name } = node as MathNode & { name: string };
      if (name === "pi") return { run: numberOf(Math.PI), unit: ONE };
      const found = this.lookup(name);
      if (found === undefined) this.fail(`there is no parameter "${name}"`);
      const { index, unit } = found;
      this.uses.add(index);
      return { run: valueOf(index), unit: bare(unit) };
    }
    if (node.type === "ParenthesisNode") {
      return this.node((node as MathNode & { content: MathNode }).content);
    }
    if (node.type === "OperatorNode") {
      const { op, args, implicit } = node as MathNode & {
        op: string;
        args: MathNode[];
        implicit: boolean;
      };
      if (implicit) this.fail("a product needs its *");
      return this.operator(op, args.map((part) => this.node(part)));
    }
    if (node.type === "FunctionNode") {
      const { fn, args } = node as unknown as {
        fn: { name?: string };
        args: MathNode[];
      };
      return this.call(fn.name ?? "?", args.map((part) => this.node(part)));
    }
    return this.fail(`it holds more than arithmetic (${node.type})`);
  }
}

/** Longest formula; deeper nesting would exhaust the stack of the parser. */
const MAX_LENGTH = 2000;

/**
 * A formula as a function of the parameters in base units, with its unit.
 *
 * @throws SyntaxError if it cannot be parsed, names what does not exist, or adds unlike units
 */
export function compileFormula(
  text: string,
  lookup: Lookup,
  functions: FormulaFunctions = {},
): CompiledFormula {
  const compiler = new Compiler(text, lookup, functions);
  if (text.length > MAX_LENGTH) {
    throw new SyntaxError(
      `Cannot use a formula of more than ${MAX_LENGTH} characters: ${text.length}`,
    );
  }
  let root: MathNode;
  try {
    root = parse(text);
  } catch (error) {
    return compiler.fail(`it cannot be parsed: ${(error as Error).message}`);
  }
  const { run, unit } = compiler.node(root);
  return {
    expression: run,
    evaluate: closureOf(run),
    unit: bare(unit),
    uses: [...compiler.uses],
  };
}
