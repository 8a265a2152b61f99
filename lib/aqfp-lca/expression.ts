/**
 * Expressions over the list of values: one representation, evaluated one run at a time or in blocks.
 *
 * The plain path turns an expression into a closure; the fast path records it on a tape (tape.ts), which
 * runs many draws at a time. Both do the same operations in the same order.
 */

/** Arithmetic over values by index. */
export type Expression =
  | { op: "number"; value: number }
  | { op: "value"; index: number }
  | { op: Operator; a: Expression; b: Expression }
  | { op: "call"; f: (...x: number[]) => number; args: Expression[] };

export type Operator = "+" | "-" | "*" | "/" | "^";

/** Value of an expression, from the values in base units. */
export type Closure = (values: Float64Array) => number;

export const numberOf = (value: number): Expression => ({
  op: "number",
  value,
});

export const valueOf = (index: number): Expression => ({ op: "value", index });

/** a op b; dividing or multiplying by one is left out. */
export function combine(
  op: Operator,
  a: Expression,
  b: Expression,
): Expression {
  const one = b.op === "number" && b.value === 1;
  return one && (op === "*" || op === "/") ? a : { op, a, b };
}

/** A function of several arguments without an array per call, for up to three. */
function applied(f: (...x: number[]) => number, runs: Closure[]): Closure {
  const [a, b, c] = runs;
  if (runs.length === 1) return (v) => f(a(v));
  if (runs.length === 2) return (v) => f(a(v), b(v));
  if (runs.length === 3) return (v) => f(a(v), b(v), c(v));
  return (v) => f(...runs.map((run) => run(v)));
}

/** The expression as a function of the values. */
export function closureOf(expression: Expression): Closure {
  switch (expression.op) {
    case "number": {
      const { value } = expression;
      return () => value;
    }
    case "value": {
      const { index } = expression;
      return (v) => v[index];
    }
    case "call":
      return applied(expression.f, expression.args.map(closureOf));
    default: {
      const [f, g] = [closureOf(expression.a), closureOf(expression.b)];
      switch (expression.op) {
        case "+":
          return (v) => f(v) + g(v);
        case "-":
          return (v) => f(v) - g(v);
        case "*":
          return (v) => f(v) * g(v);
        case "/":
          return (v) => f(v) / g(v);
        case "^":
          return (v) => f(v) ** g(v);
      }
    }
  }
}

/** Whether an expression uses one of the values. */
export function dependsOn(
  expression: Expression,
  values: ReadonlySet<number>,
): boolean {
  switch (expression.op) {
    case "number":
      return false;
    case "value":
      return values.has(expression.index);
    case "call":
      return expression.args.some((part) => dependsOn(part, values));
    default:
      return dependsOn(expression.a, values) || dependsOn(expression.b, values);
  }
}
