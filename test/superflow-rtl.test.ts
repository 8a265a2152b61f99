/** RTL: the circuits of data/rtl, against arithmetic. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { fold, key, randomInts } from "../lib/core/rng.ts";
import {
  evaluate,
  isGate,
  type Netlist,
  ports,
} from "../lib/superflow/netlist.ts";
import { synthesise } from "../lib/superflow/synthesis.ts";

const gateCount = ({ cells }: Netlist) => cells.filter(isGate).length;

test("every circuit of data/rtl computes what its name says", async () => {
  const folder = fileURLToPath(new URL("../data/rtl/", import.meta.url));
  const popcount = (x: bigint) => x.toString(2).replaceAll("0", "").length;
  /** Outputs as numbers by name, from inputs as numbers by name. */
  const expected: Record<
    string,
    (x: Record<string, bigint>) => Record<string, bigint>
  > = {
    adder8: ({ a, b, cin }) => ({
      sum: (a + b + cin) & 255n,
      cout: (a + b + cin) >> 8n,
    }),
    alu4: ({ a, b, op }) => {
      const sum = a + b;
      const difference = a + (b ^ 15n) + 1n;
      const y = [sum, difference, a & b, a | b, a ^ b, ~a, a << 1n, a >> 1n][
        Number(op)
      ] & 15n;
      const carry = op === 0n ? sum >> 4n : op === 1n ? difference >> 4n : 0n;
      return { y, carry, zero: y === 0n ? 1n : 0n };
    },
    apc32: (x) => ({ count: BigInt(popcount(x.in)) }),
    apc128: (x) => ({ count: BigInt(popcount(x.in)) }),
    comparator8: ({ a, b }) => ({
      less: a < b ? 1n : 0n,
      equal: a === b ? 1n : 0n,
    }),
    decoder: ({ code, enable }) => ({ line: enable << code }),
    c17: ({ N1, N2, N3, N6, N7 }) => {
      const shared = 1n ^ (N3 & N6);
      return { N22: (N1 & N3) | (N2 & shared), N23: shared & (N2 | N7) };
    },
    multiplier8: ({ a, b }) => ({ p: a * b }),
    rv32alu: ({ a, b, funct3, alternate }) => {
      const signed = (x: bigint) => BigInt.asIntN(32, x);
      const subtract = alternate === 1n || funct3 !== 0n;
      const shift = b & 31n;
      const less = signed(a) < signed(b) ? 1n : 0n;
      const lessu = a < b ? 1n : 0n;
      const y = [
        subtract ? a - b : a + b,
        a << shift,
        less,
        lessu,
        a ^ b,
        (alternate === 1n ? signed(a) : a) >> shift,
        a | b,
        a & b,
      ][Number(funct3)];
      return {
        y: BigInt.asUintN(32, y),
        equal: a === b ? 1n : 0n,
        less: subtract ? less : 0n,
        lessu: subtract ? lessu : 0n,
      };
    },
    sorter32: ({ a }) => ({ b: (1n << BigInt(popcount(a))) - 1n }),
  };
  const files = readdirSync(folder).filter((file) => file.endsWith(".v"));
  assert.equal(
    files.map((file) => file.slice(0, -2)).sort(),
    Object.keys(expected).sort(),
  );
  for (const file of files) {
    const name = file.slice(0, -2);
    const netlist = await synthesise({ path: join(folder, file) });
    assert.is(netlist.name, name);
    const inputs = ports(netlist, "input");
    const words = Uint32Array.from(
      randomInts(fold(key(9), name), inputs.length * 2, 0, 1 << 16),
    ).reduce((list, half, i) => {
      list[i >> 1] = (list[i >> 1] << 16) | half;
      return list;
    }, new Uint32Array(inputs.length));
    // sparse and full patterns too, for counters and sorters
    words.forEach((word, i) => words[i] = (word & ~3) | 2);
    const values = evaluate(netlist, words);
    for (let pattern = 0; pattern < 32; pattern++) {
      const numbers = (direction: "input" | "output") => {
        const result: Record<string, bigint> = {};
        for (const i of ports(netlist, direction)) {
          const [, port, index] = /^(\w+)(?:\[(\d+)\])?$/.exec(
            netlist.cells[i].name,
          )!;
          const value = BigInt((values[i] >>> pattern) & 1);
          result[port] = (result[port] ?? 0n) | (value << BigInt(index ?? 0));
        }
        return result;
      };
      const wanted = expected[name](numbers("input"));
      assert.equal(numbers("output"), wanted, `${name}, pattern ${pattern}`);
    }
  }
});

test("an adder of eight bits is 24 gates, three per bit", async () => {
  const path = fileURLToPath(new URL("../data/rtl/adder8.v", import.meta.url));
  const netlist = await synthesise({ path });
  assert.is(gateCount(netlist), 24);
});

test.run();
